BEGIN TRANSACTION;
CREATE TABLE epochs (
	study VARCHAR(64) NOT NULL, 
	number INTEGER NOT NULL, 
	epoch INTEGER NOT NULL, 
	report TEXT NOT NULL, 
	delivered BOOLEAN NOT NULL, 
	PRIMARY KEY (study, number, epoch), 
	FOREIGN KEY(study, number) REFERENCES trials (study, number)
);
INSERT INTO "epochs" VALUES('old',0,1,'{"epoch": 1, "epoch_seconds": 12.342987113000163, "examples_per_second": 111.60665250527357, "timestamp_ms": 1795204229857, "train_accuracy": 0.04177545691906005, "train_loss": 2.4608036369941253, "val_accuracy": 0.03819444444444445, "val_loss": 2.3567996554904513}',1);
INSERT INTO "epochs" VALUES('old',0,2,'{"epoch": 2, "epoch_seconds": 0.10067117100015821, "examples_per_second": 11527.712218876297, "timestamp_ms": 1795204230106, "train_accuracy": 0.07919930374238468, "train_loss": 2.3714987387130115, "val_accuracy": 0.08680555555555555, "val_loss": 2.28397454155816}',1);
INSERT INTO "epochs" VALUES('old',0,3,'{"epoch": 3, "epoch_seconds": 0.04061313700003666, "examples_per_second": 29342.20371906805, "timestamp_ms": 1795204230147, "train_accuracy": 0.08006962576153177, "train_loss": 2.315518504541993, "val_accuracy": 0.1423611111111111, "val_loss": 2.2233494652642145}',1);
INSERT INTO "epochs" VALUES('old',0,4,'{"epoch": 4, "epoch_seconds": 0.2822695009999734, "examples_per_second": 4128.680708074266, "timestamp_ms": 1795204232348, "train_accuracy": 0.144473455178416, "train_loss": 2.2597813485911664, "val_accuracy": 0.2708333333333333, "val_loss": 2.168953365749783}',1);
INSERT INTO "epochs" VALUES('old',0,5,'{"epoch": 5, "epoch_seconds": 0.1746523880001405, "examples_per_second": 7147.647123961447, "timestamp_ms": 1795204232523, "train_accuracy": 0.17493472584856398, "train_loss": 2.2139672660329635, "val_accuracy": 0.3680555555555556, "val_loss": 2.119572745429145}',1);
INSERT INTO "epochs" VALUES('old',0,6,'{"epoch": 6, "epoch_seconds": 0.3923674860002393, "examples_per_second": 9261.45214829003, "timestamp_ms": 1795204232916, "train_accuracy": 0.2175805047867711, "train_loss": 2.173421648920257, "val_accuracy": 0.4548611111111111, "val_loss": 2.0717319912380643}',1);
INSERT INTO "epochs" VALUES('old',0,7,'{"epoch": 7, "epoch_seconds": 0.45195322700010365, "examples_per_second": 2961.6717607594455, "timestamp_ms": 1795204233405, "train_accuracy": 0.25674499564838993, "train_loss": 2.1156357515366624, "val_accuracy": 0.5104166666666666, "val_loss": 2.0250657399495444}',1);
INSERT INTO "epochs" VALUES('old',0,8,'{"epoch": 8, "epoch_seconds": 0.477387262999855, "examples_per_second": 6335.933336061958, "timestamp_ms": 1795204234025, "train_accuracy": 0.30983463881636203, "train_loss": 2.076350996450718, "val_accuracy": 0.5763888888888888, "val_loss": 1.980590608384874}',1);
INSERT INTO "epochs" VALUES('old',0,9,'{"epoch": 9, "epoch_seconds": 0.06920236699988891, "examples_per_second": 21434.558074335047, "timestamp_ms": 1795204234094, "train_accuracy": 0.33507397737162753, "train_loss": 2.0345013836760226, "val_accuracy": 0.6145833333333334, "val_loss": 1.936972935994466}',1);
INSERT INTO "epochs" VALUES('old',1,1,'{"epoch": 1, "epoch_seconds": 10.623841103999894, "examples_per_second": 140.64159646575402, "timestamp_ms": 1795204239784, "train_accuracy": 0.09138381201044386, "train_loss": 2.29931640625, "val_accuracy": 0.1111111111111111, "val_loss": 2.294226964314779}',0);
CREATE TABLE meta (
	schema_version INTEGER NOT NULL, 
	PRIMARY KEY (schema_version)
);
INSERT INTO "meta" VALUES(1);
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
INSERT INTO "studies" VALUES('old','{"address": null, "concurrent": null, "confirm_seeds": 2, "cpus_per_trial": 1, "data": "digits", "data_dir": null, "finalists": 1, "first_rung": 3, "gpus_per_trial": 0.0, "max_epochs": 9, "policy": "one-standard-error", "reduction": 3, "sampler": "tpe", "scheduler": "asha", "seed": 0, "space": "mlp", "study": "old", "tracking": {"artifact_root": "runs/artifacts", "experiment": "podium", "registered_model": "podium", "tracking_uri": "sqlite:///runs/mlflow.db"}, "trials": 3}','{"baseline": "44136fa355b3", "classes": 10, "data": "digits", "fingerprint": "d53f9a23e51cf8de", "git_commit": "unknown", "image_shape": [8, 8, 1], "seed": 0, "test_fingerprint": "af35ecfe40d007fc", "test_images": 360, "train_images": 1149, "validation_images": 288, "versions": {"keras": "3.15.1", "mlflow": "3.17.2", "numpy": "2.4.6", "optuna": "5.0.0", "podium-search": "0.1.0", "python": "3.11.7", "ray": "2.60.0", "scikit-learn": "1.9.1", "tensorflow": "2.21.0"}}','running',NULL,1795204160439,NULL,NULL,'184a8d527cfa4d1d8619ad07d23a2f80');
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
	pid INTEGER, 
	run_id VARCHAR(64), 
	delivered BOOLEAN NOT NULL, 
	PRIMARY KEY (study, number), 
	FOREIGN KEY(study) REFERENCES studies (name)
);
INSERT INTO "trials" VALUES('old',0,'search','{"batch_size":64,"decay":8.879341769741934e-05,"dropout":0.09007742321802537,"hidden":[85],"input_dropout":0.26178712399597476,"learning_rate":0.009352210481807422,"momentum":0.1628841299941022,"optimizer":"sgd"}',746405699,0,'completed',NULL,NULL,1795204162590,1795204235118,'{"best_epoch": 9, "f1_macro": 0.5799787961017034, "gap": 0.01041666666666663, "parameters": 6385, "roc_auc_ovo": 0.9119598334775842, "train_accuracy": 0.625, "val_accuracy": 0.6145833333333334, "val_loss": 1.936972935994466, "wall_seconds": 21.16116390900015}','{"class_name": "SGD", "ema_momentum": 0.99, "learning_rate.class_name": "InverseTimeDecay", "learning_rate.config.decay_rate": 8.879341769741934e-05, "learning_rate.config.decay_steps": 1, "learning_rate.config.initial_learning_rate": 0.009352210481807422, "learning_rate.config.staircase": false, "momentum": 0.1628841299941022, "nesterov": false, "use_ema": false}',27150,'d904f08d199443b99e2fe4bab4f02d52',1);
INSERT INTO "trials" VALUES('old',1,'search','{"batch_size":128,"decay":4.16476766757302e-06,"dropout":0.260403485892446,"hidden":[287,60,57,687],"input_dropout":0.0840727186158939,"learning_rate":0.0038181118217306036,"momentum":0.8096369457792789,"optimizer":"sgd"}',107832787,0,'running',NULL,NULL,1795204162608,NULL,NULL,'{"class_name": "SGD", "ema_momentum": 0.99, "learning_rate.class_name": "InverseTimeDecay", "learning_rate.config.decay_rate": 4.16476766757302e-06, "learning_rate.config.decay_steps": 1, "learning_rate.config.initial_learning_rate": 0.0038181118217306036, "learning_rate.config.staircase": false, "momentum": 0.8096369457792789, "nesterov": false, "use_ema": false}',27151,'48732a8aa34041c59d7132063a24462e',0);
INSERT INTO "trials" VALUES('old',2,'search','{"batch_size":128,"dropout":0.039077006377037315,"hidden":[1005,974,17,126,883],"input_dropout":0.0078119100787575,"learning_rate":0.003832862938343568}',2117250515,0,'running',NULL,NULL,1795204235143,NULL,NULL,NULL,NULL,'437cf2971b1c44e683d2c46b8d19bff8',1);
CREATE INDEX ix_openings_fingerprint ON openings (fingerprint);
COMMIT;
