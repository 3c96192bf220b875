BEGIN TRANSACTION;
CREATE TABLE costs (
	study VARCHAR(64) NOT NULL, 
	config_id VARCHAR(16) NOT NULL, 
	costs TEXT NOT NULL, 
	PRIMARY KEY (study, config_id), 
	FOREIGN KEY(study) REFERENCES studies (name)
);
CREATE TABLE epochs (
	study VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	report TEXT NOT NULL, 
	delivered BOOLEAN NOT NULL, 
	PRIMARY KEY (study, number, epoch), 
	FOREIGN KEY(study, number) REFERENCES trials (study, number)
);
INSERT INTO "epochs" VALUES('old',0,1,'{"epoch": 1, "epoch_seconds": 0.25, "examples_per_second": 4000.0, "timestamp_ms": 1001, "train_accuracy": 0.85, "train_loss": 0.5, "val_accuracy": 0.1, "val_loss": 0.6}',0);
INSERT INTO "epochs" VALUES('old',0,2,'{"epoch": 2, "epoch_seconds": 0.25, "examples_per_second": 4000.0, "timestamp_ms": 1002, "train_accuracy": 0.85, "train_loss": 0.5, "val_accuracy": 0.2, "val_loss": 0.6}',0);
INSERT INTO "epochs" VALUES('old',0,3,'{"epoch": 3, "epoch_seconds": 0.25, "examples_per_second": 4000.0, "timestamp_ms": 1003, "train_accuracy": 0.85, "train_loss": 0.5, "val_accuracy": 0.30000000000000004, "val_loss": 0.6}',0);
INSERT INTO "epochs" VALUES('old',0,4,'{"epoch": 4, "epoch_seconds": 0.25, "examples_per_second": 4000.0, "timestamp_ms": 1004, "train_accuracy": 0.85, "train_loss": 0.5, "val_accuracy": 0.4, "val_loss": 0.6}',0);
INSERT INTO "epochs" VALUES('old',0,5,'{"epoch": 5, "epoch_seconds": 0.25, "examples_per_second": 4000.0, "timestamp_ms": 1005, "train_accuracy": 0.85, "train_loss": 0.5, "val_accuracy": 0.5, "val_loss": 0.6}',0);
INSERT INTO "epochs" VALUES('old',0,6,'{"epoch": 6, "epoch_seconds": 0.25, "examples_per_second": 4000.0, "timestamp_ms": 1006, "train_accuracy": 0.85, "train_loss": 0.5, "val_accuracy": 0.6000000000000001, "val_loss": 0.6}',0);
INSERT INTO "epochs" VALUES('old',0,7,'{"epoch": 7, "epoch_seconds": 0.25, "examples_per_second": 4000.0, "timestamp_ms": 1007, "train_accuracy": 0.85, "train_loss": 0.5, "val_accuracy": 0.7000000000000001, "val_loss": 0.6}',0);
INSERT INTO "epochs" VALUES('old',0,8,'{"epoch": 8, "epoch_seconds": 0.25, "examples_per_second": 4000.0, "timestamp_ms": 1008, "train_accuracy": 0.85, "train_loss": 0.5, "val_accuracy": 0.8, "val_loss": 0.6}',0);
INSERT INTO "epochs" VALUES('old',0,9,'{"epoch": 9, "epoch_seconds": 0.25, "examples_per_second": 4000.0, "timestamp_ms": 1009, "train_accuracy": 0.85, "train_loss": 0.5, "val_accuracy": 0.9, "val_loss": 0.6}',0);
INSERT INTO "epochs" VALUES('old',1,1,'{"epoch": 1, "epoch_seconds": 0.25, "examples_per_second": 4000.0, "timestamp_ms": 1001, "train_accuracy": 0.85, "train_loss": 0.5, "val_accuracy": 0.8, "val_loss": 0.6}',0);
INSERT INTO "epochs" VALUES('old',1,2,'{"epoch": 2, "epoch_seconds": 0.25, "examples_per_second": 4000.0, "timestamp_ms": 1002, "train_accuracy": 0.85, "train_loss": 0.5, "val_accuracy": 0.8, "val_loss": 0.6}',0);
CREATE TABLE meta (
	schema_version INTEGER NOT NULL, 
	PRIMARY KEY (schema_version)
);
INSERT INTO "meta" VALUES(2);
CREATE TABLE openings (
	id INTEGER NOT NULL, 
	fingerprint VARCHAR(64) NOT NULL, 
	study VARCHAR(64) NOT NULL, 
	reason TEXT NOT NULL, 
	opened_ms BIGINT NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE studies (
	name VARCHAR(64) NOT NULL, 
	settings TEXT NOT NULL, 
	facts TEXT NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	reason TEXT, 
	started_ms BIGINT NOT NULL, 
	ended_ms BIGINT, 
	outcome TEXT, 
	run_id VARCHAR(64), 
	PRIMARY KEY (name)
);
INSERT INTO "studies" VALUES('old','{"address": null, "concurrent": null, "confirm_seeds": 2, "correction": "paired", "cost": "parameters", "cpus_per_trial": 1, "data": "digits", "data_dir": null, "finalists": 1, "first_rung": 3, "folds": 0, "gpus_per_trial": 0.0, "grid": {}, "image_shape": null, "label_column": null, "max_epochs": 9, "max_gap": null, "max_latency_ms": null, "max_params": null, "min_class_recall": null, "policy": "one-standard-error", "reduction": 3, "retries": 2, "sampler": "tpe", "scheduler": "asha", "seed": 0, "space": "mlp", "study": "old", "tolerance": 0.005, "tracking": {"artifact_root": "runs/artifacts", "experiment": "podium", "gates": {"max_calibration_error": 0.1, "max_latency_ms": 100.0, "max_size_mb": 100.0, "min_accuracy": 0.8, "min_class_recall": 0.5, "non_inferiority_margin": 0.02, "reproducible_load": true}, "registered_model": "podium-{data}", "tracking_uri": "sqlite:///runs/mlflow.db"}, "trials": 4}','{"baseline": "44136fa355b3", "class_names": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], "classes": 10, "data": "digits", "fingerprint": "d53f9a23e51cf8de", "git_commit": "unknown", "image_shape": [8, 8, 1], "seed": 0, "space": "mlp", "test_fingerprint": "af35ecfe40d007fc", "test_images": 360, "train_images": 1149, "validation_images": 288, "versions": {"keras": "3.15.1", "mlflow": "3.17.2", "numpy": "2.4.6", "optuna": "5.0.0", "podium-search": "0.1.0", "python": "3.11.7", "ray": "2.60.0", "scikit-learn": "1.9.1", "tensorflow": "2.21.0"}}','running',NULL,1795204439131,NULL,NULL,'dd096009764b469b9425319db3ca67ba');
CREATE TABLE tests (
	study VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	measures TEXT NOT NULL, 
	PRIMARY KEY (study, number, epoch), 
	FOREIGN KEY(study, number) REFERENCES trials (study, number)
);
CREATE TABLE trials (
	study VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	phase VARCHAR(16) NOT NULL, 
	config TEXT NOT NULL, 
	seed INTEGER NOT NULL, 
	split_seed INTEGER NOT NULL, 
	state VARCHAR(16) NOT NULL, 
	reason TEXT, 
	rung INTEGER, 
	started_ms BIGINT NOT NULL, 
	ended_ms BIGINT, 
	totals TEXT, 
	compiled TEXT, 
	"plan" TEXT, 
	pid INTEGER, 
	run_id VARCHAR(64), 
	delivered BOOLEAN NOT NULL, 
	PRIMARY KEY (study, number), 
	FOREIGN KEY(study) REFERENCES studies (name)
);
INSERT INTO "trials" VALUES('old',0,'search','{"batch_size":64,"decay":8.879341769741934e-05,"dropout":0.09007742321802537,"hidden":[85],"input_dropout":0.26178712399597476,"learning_rate":0.009352210481807422,"momentum":0.1628841299941022,"optimizer":"sgd"}',746405699,0,'completed',NULL,NULL,1795204444003,1795204600000,'{"best_epoch": 9, "fold_accuracies": [], "gap": 0.1, "measures": {"accuracy": 0.8, "calibration_error": 0.05, "confusion": [[9, 1], [3, 7]], "f1_macro": 0.79, "f1_micro": 0.8, "loss": 0.6, "precision": [0.75, 0.875], "recall": [0.9, 0.7], "roc_auc_ovo": 0.95, "roc_auc_ovr": 0.94}, "parameters": 1000, "train_accuracy": 0.9, "val_accuracy": 0.9, "val_loss": 0.6, "wall_seconds": 3.5}',NULL,'{"experiment": "", "folds": 0, "max_epochs": 9, "proposal": "{\"layers\": [1.0, \"{\\\"name\\\": \\\"IntDistribution\\\", \\\"attributes\\\": {\\\"log\\\": false, \\\"step\\\": 1, \\\"low\\\": 1, \\\"high\\\": 5}}\"], \"units_1\": [85.0, \"{\\\"name\\\": \\\"IntDistribution\\\", \\\"attributes\\\": {\\\"log\\\": true, \\\"step\\\": 1, \\\"low\\\": 16, \\\"high\\\": 1024}}\"], \"input_dropout\": [0.26178712399597476, \"{\\\"name\\\": \\\"FloatDistribution\\\", \\\"attributes\\\": {\\\"step\\\": null, \\\"low\\\": 0.0, \\\"high\\\": 0.3, \\\"log\\\": false}}\"], \"dropout\": [0.09007742321802537, \"{\\\"name\\\": \\\"FloatDistribution\\\", \\\"attributes\\\": {\\\"step\\\": null, \\\"low\\\": 0.0, \\\"high\\\": 0.5, \\\"log\\\": false}}\"], \"batch_size\": [1, \"{\\\"name\\\": \\\"CategoricalDistribution\\\", \\\"attributes\\\": {\\\"choices\\\": [32, 64, 128, 256]}}\"], \"optimizer\": [2, \"{\\\"name\\\": \\\"CategoricalDistribution\\\", \\\"attributes\\\": {\\\"choices\\\": [\\\"adam\\\", \\\"rmsprop\\\", \\\"sgd\\\"]}}\"], \"sgd_learning_rate\": [0.009352210481807422, \"{\\\"name\\\": \\\"FloatDistribution\\\", \\\"attributes\\\": {\\\"step\\\": null, \\\"low\\\": 0.001, \\\"high\\\": 0.3, \\\"log\\\": true}}\"], \"momentum\": [0.1628841299941022, \"{\\\"name\\\": \\\"FloatDistribution\\\", \\\"attributes\\\": {\\\"step\\\": null, \\\"low\\\": 0.0, \\\"high\\\": 0.99, \\\"log\\\": false}}\"], \"decay\": [8.879341769741934e-05, \"{\\\"name\\\": \\\"FloatDistribution\\\", \\\"attributes\\\": {\\\"step\\\": null, \\\"low\\\": 1e-06, \\\"high\\\": 0.001, \\\"log\\\": true}}\"]}", "tail": false, "validation_fraction": 0.2}',4711,'50efa72f94d24143bae3a1011a273a1e',0);
INSERT INTO "trials" VALUES('old',1,'search','{"batch_size":128,"decay":4.16476766757302e-06,"dropout":0.260403485892446,"hidden":[287,60,57,687],"input_dropout":0.0840727186158939,"learning_rate":0.0038181118217306036,"momentum":0.8096369457792789,"optimizer":"sgd"}',107832787,0,'running',NULL,NULL,1795204444064,NULL,NULL,NULL,'{"experiment": "", "folds": 0, "max_epochs": 9, "proposal": "{\"layers\": [4.0, \"{\\\"name\\\": \\\"IntDistribution\\\", \\\"attributes\\\": {\\\"log\\\": false, \\\"step\\\": 1, \\\"low\\\": 1, \\\"high\\\": 5}}\"], \"units_1\": [287.0, \"{\\\"name\\\": \\\"IntDistribution\\\", \\\"attributes\\\": {\\\"log\\\": true, \\\"step\\\": 1, \\\"low\\\": 16, \\\"high\\\": 1024}}\"], \"units_2\": [60.0, \"{\\\"name\\\": \\\"IntDistribution\\\", \\\"attributes\\\": {\\\"log\\\": true, \\\"step\\\": 1, \\\"low\\\": 16, \\\"high\\\": 1024}}\"], \"units_3\": [57.0, \"{\\\"name\\\": \\\"IntDistribution\\\", \\\"attributes\\\": {\\\"log\\\": true, \\\"step\\\": 1, \\\"low\\\": 16, \\\"high\\\": 1024}}\"], \"units_4\": [687.0, \"{\\\"name\\\": \\\"IntDistribution\\\", \\\"attributes\\\": {\\\"log\\\": true, \\\"step\\\": 1, \\\"low\\\": 16, \\\"high\\\": 1024}}\"], \"input_dropout\": [0.0840727186158939, \"{\\\"name\\\": \\\"FloatDistribution\\\", \\\"attributes\\\": {\\\"step\\\": null, \\\"low\\\": 0.0, \\\"high\\\": 0.3, \\\"log\\\": false}}\"], \"dropout\": [0.260403485892446, \"{\\\"name\\\": \\\"FloatDistribution\\\", \\\"attributes\\\": {\\\"step\\\": null, \\\"low\\\": 0.0, \\\"high\\\": 0.5, \\\"log\\\": false}}\"], \"batch_size\": [2, \"{\\\"name\\\": \\\"CategoricalDistribution\\\", \\\"attributes\\\": {\\\"choices\\\": [32, 64, 128, 256]}}\"], \"optimizer\": [2, \"{\\\"name\\\": \\\"CategoricalDistribution\\\", \\\"attributes\\\": {\\\"choices\\\": [\\\"adam\\\", \\\"rmsprop\\\", \\\"sgd\\\"]}}\"], \"sgd_learning_rate\": [0.0038181118217306036, \"{\\\"name\\\": \\\"FloatDistribution\\\", \\\"attributes\\\": {\\\"step\\\": null, \\\"low\\\": 0.001, \\\"high\\\": 0.3, \\\"log\\\": true}}\"], \"momentum\": [0.8096369457792789, \"{\\\"name\\\": \\\"FloatDistribution\\\", \\\"attributes\\\": {\\\"step\\\": null, \\\"low\\\": 0.0, \\\"high\\\": 0.99, \\\"log\\\": false}}\"], \"decay\": [4.16476766757302e-06, \"{\\\"name\\\": \\\"FloatDistribution\\\", \\\"attributes\\\": {\\\"step\\\": null, \\\"low\\\": 1e-06, \\\"high\\\": 0.001, \\\"log\\\": true}}\"]}", "tail": false, "validation_fraction": 0.2}',4711,'5e02d0fc87e240a4b05334265ed29a20',0);
CREATE INDEX ix_openings_fingerprint ON openings (fingerprint);
COMMIT;
