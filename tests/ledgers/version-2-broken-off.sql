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
INSERT INTO "epochs" VALUES('old',1,1,'{"epoch": 1, "epoch_seconds": 10.332782686999963, "examples_per_second": 160.9819511655652, "timestamp_ms": 1795204382401, "train_accuracy": 0.09138381201044386, "train_loss": 2.29931640625, "val_accuracy": 0.1111111111111111, "val_loss": 2.294226964314779}',1);
INSERT INTO "epochs" VALUES('old',1,2,'{"epoch": 2, "epoch_seconds": 0.8066243549997125, "examples_per_second": 1533.2266078625587, "timestamp_ms": 1795204383314, "train_accuracy": 0.11488250652741515, "train_loss": 2.2941631054857483, "val_accuracy": 0.1111111111111111, "val_loss": 2.291181352403429}',1);
INSERT INTO "epochs" VALUES('old',1,3,'{"epoch": 3, "epoch_seconds": 0.4073500739996234, "examples_per_second": 2834.4773779907487, "timestamp_ms": 1795204383721, "train_accuracy": 0.12532637075718014, "train_loss": 2.2941694799145997, "val_accuracy": 0.12152777777777778, "val_loss": 2.28776486714681}',1);
INSERT INTO "epochs" VALUES('old',1,4,'{"epoch": 4, "epoch_seconds": 0.3064053910002258, "examples_per_second": 4146.645553399027, "timestamp_ms": 1795204384807, "train_accuracy": 0.12967798085291557, "train_loss": 2.293817611442015, "val_accuracy": 0.1423611111111111, "val_loss": 2.2844365437825522}',1);
INSERT INTO "epochs" VALUES('old',1,5,'{"epoch": 5, "epoch_seconds": 0.7624956479999128, "examples_per_second": 1511.3664782329977, "timestamp_ms": 1795204385570, "train_accuracy": 0.13054830287206268, "train_loss": 2.291169461216275, "val_accuracy": 0.1701388888888889, "val_loss": 2.2810501522488065}',1);
INSERT INTO "epochs" VALUES('old',1,6,'{"epoch": 6, "epoch_seconds": 0.4628081799996835, "examples_per_second": 2718.073644764919, "timestamp_ms": 1795204386152, "train_accuracy": 0.12706701479547433, "train_loss": 2.2904814478622715, "val_accuracy": 0.2013888888888889, "val_loss": 2.2775635189480252}',1);
INSERT INTO "epochs" VALUES('old',1,7,'{"epoch": 7, "epoch_seconds": 0.540703153999857, "examples_per_second": 2149.211558185837, "timestamp_ms": 1795204386735, "train_accuracy": 0.13228894691035684, "train_loss": 2.2873018827513056, "val_accuracy": 0.22569444444444445, "val_loss": 2.2740183936225042}',1);
INSERT INTO "epochs" VALUES('old',1,8,'{"epoch": 8, "epoch_seconds": 0.517372737000187, "examples_per_second": 2229.3576542486076, "timestamp_ms": 1795204387395, "train_accuracy": 0.14795474325500435, "train_loss": 2.2833618482783944, "val_accuracy": 0.2465277777777778, "val_loss": 2.270167456732856}',0);
INSERT INTO "epochs" VALUES('old',1,9,'{"epoch": 9, "epoch_seconds": 0.2009744439997121, "examples_per_second": 6489.780479426882, "timestamp_ms": 1795204387597, "train_accuracy": 0.16275021758050479, "train_loss": 2.280490593042863, "val_accuracy": 0.2743055555555556, "val_loss": 2.2660429212782116}',0);
INSERT INTO "epochs" VALUES('old',0,1,'{"epoch": 1, "epoch_seconds": 14.46985464699992, "examples_per_second": 115.00347885373462, "timestamp_ms": 1795204390352, "train_accuracy": 0.04177545691906005, "train_loss": 2.4608036369941253, "val_accuracy": 0.03819444444444445, "val_loss": 2.3567996554904513}',0);
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
INSERT INTO "studies" VALUES('old','{"address": null, "concurrent": null, "confirm_seeds": 2, "correction": "paired", "cost": "parameters", "cpus_per_trial": 1, "data": "digits", "data_dir": null, "finalists": 1, "first_rung": 3, "folds": 0, "gpus_per_trial": 0.0, "grid": {}, "image_shape": null, "label_column": null, "max_epochs": 9, "max_gap": null, "max_latency_ms": null, "max_params": null, "min_class_recall": null, "policy": "one-standard-error", "reduction": 3, "sampler": "tpe", "scheduler": "asha", "seed": 0, "space": "mlp", "study": "old", "tolerance": 0.005, "tracking": {"artifact_root": "runs/artifacts", "experiment": "podium", "gates": {"max_calibration_error": 0.1, "max_latency_ms": 100.0, "max_size_mb": 100.0, "min_accuracy": 0.8, "min_class_recall": 0.5, "non_inferiority_margin": 0.02, "reproducible_load": true}, "registered_model": "podium-{data}", "tracking_uri": "sqlite:///runs/mlflow.db"}, "trials": 3}','{"baseline": "44136fa355b3", "class_names": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], "classes": 10, "data": "digits", "fingerprint": "d53f9a23e51cf8de", "git_commit": "unknown", "image_shape": [8, 8, 1], "seed": 0, "test_fingerprint": "af35ecfe40d007fc", "test_images": 360, "train_images": 1149, "validation_images": 288, "versions": {"keras": "3.15.1", "mlflow": "3.17.2", "numpy": "2.4.6", "optuna": "5.0.0", "podium-search": "0.1.0", "python": "3.11.7", "ray": "2.60.0", "scikit-learn": "1.9.1", "tensorflow": "2.21.0"}}','running',NULL,1795204285213,NULL,NULL,'d44824aecada4dacb0aebf5ff9cd33e0');
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
INSERT INTO "trials" VALUES('old',0,'search','{"batch_size":64,"decay":8.879341769741934e-05,"dropout":0.09007742321802537,"hidden":[85],"input_dropout":0.26178712399597476,"learning_rate":0.009352210481807422,"momentum":0.1628841299941022,"optimizer":"sgd"}',746405699,0,'running',NULL,NULL,1795204289751,NULL,NULL,'{"class_name": "SGD", "ema_momentum": 0.99, "learning_rate.class_name": "InverseTimeDecay", "learning_rate.config.decay_rate": 8.879341769741934e-05, "learning_rate.config.decay_steps": 1, "learning_rate.config.initial_learning_rate": 0.009352210481807422, "learning_rate.config.staircase": false, "momentum": 0.1628841299941022, "nesterov": false, "use_ema": false}','{"experiment": "", "folds": 0, "max_epochs": 9, "tail": false, "validation_fraction": 0.2}',29605,'6d7d03cca8dc4fabb43991140b45a7bb',0);
INSERT INTO "trials" VALUES('old',1,'search','{"batch_size":128,"decay":4.16476766757302e-06,"dropout":0.260403485892446,"hidden":[287,60,57,687],"input_dropout":0.0840727186158939,"learning_rate":0.0038181118217306036,"momentum":0.8096369457792789,"optimizer":"sgd"}',107832787,0,'completed',NULL,NULL,1795204290985,1795204390342,'{"best_epoch": 9, "fold_accuracies": [], "gap": 0.0, "measures": {"accuracy": 0.2743055555555556, "calibration_error": 0.1667723779100925, "confusion": [[8, 0, 0, 0, 15, 0, 4, 1, 0, 1], [0, 27, 0, 0, 1, 0, 0, 0, 0, 1], [0, 24, 0, 3, 1, 0, 0, 0, 0, 0], [0, 16, 0, 13, 0, 0, 0, 0, 0, 0], [0, 10, 0, 0, 19, 0, 0, 0, 0, 0], [0, 8, 1, 7, 6, 0, 6, 1, 0, 0], [0, 22, 0, 0, 0, 0, 7, 0, 0, 0], [0, 13, 1, 1, 10, 0, 1, 3, 0, 0], [0, 28, 0, 0, 0, 0, 0, 0, 0, 0], [0, 10, 0, 17, 0, 0, 0, 0, 0, 2]], "f1_macro": 0.21573219096790228, "f1_micro": 0.2743055555555556, "loss": 2.266042955348543, "precision": [1.0, 0.17088607594936708, 0.0, 0.3170731707317073, 0.36538461538461536, 0.0, 0.3888888888888889, 0.6, 0.0, 0.5], "recall": [0.27586206896551724, 0.9310344827586207, 0.0, 0.4482758620689655, 0.6551724137931034, 0.0, 0.2413793103448276, 0.10344827586206896, 0.0, 0.06896551724137931], "roc_auc_ovo": 0.8814351503582011, "roc_auc_ovr": 0.8815327775672603}, "parameters": 86138, "train_accuracy": 0.2743055555555556, "val_accuracy": 0.2743055555555556, "val_loss": 2.2660429212782116, "wall_seconds": 18.657722195000133}','{"class_name": "SGD", "ema_momentum": 0.99, "learning_rate.class_name": "InverseTimeDecay", "learning_rate.config.decay_rate": 4.16476766757302e-06, "learning_rate.config.decay_steps": 1, "learning_rate.config.initial_learning_rate": 0.0038181118217306036, "learning_rate.config.staircase": false, "momentum": 0.8096369457792789, "nesterov": false, "use_ema": false}','{"experiment": "", "folds": 0, "max_epochs": 9, "tail": false, "validation_fraction": 0.2}',29604,'50942bdc48a14f7782903b4eef271806',0);
INSERT INTO "trials" VALUES('old',2,'search','{"batch_size":128,"dropout":0.039077006377037315,"hidden":[1005,974,17,126,883],"input_dropout":0.0078119100787575,"learning_rate":0.003832862938343568}',2117250515,0,'running',NULL,NULL,1795204390387,NULL,NULL,NULL,'{"experiment": "", "folds": 0, "max_epochs": 9, "tail": false, "validation_fraction": 0.2}',NULL,NULL,0);
CREATE INDEX ix_openings_fingerprint ON openings (fingerprint);
COMMIT;
