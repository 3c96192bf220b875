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
INSERT INTO "epochs" VALUES('old',0,1,'{"epoch": 1, "epoch_seconds": 3.470631965999928, "examples_per_second": 405.6544632478817, "timestamp_ms": 1795203970714, "train_accuracy": 0.04177545691906005, "train_loss": 2.4608036369941253, "val_accuracy": 0.03819444444444445, "val_loss": 2.3567996554904513}',1);
INSERT INTO "epochs" VALUES('old',0,2,'{"epoch": 2, "epoch_seconds": 0.07574177600008625, "examples_per_second": 15848.41532814204, "timestamp_ms": 1795203970965, "train_accuracy": 0.07919930374238468, "train_loss": 2.3714987387130115, "val_accuracy": 0.08680555555555555, "val_loss": 2.28397454155816}',1);
INSERT INTO "epochs" VALUES('old',0,3,'{"epoch": 3, "epoch_seconds": 0.038714393000191194, "examples_per_second": 32591.67095299062, "timestamp_ms": 1795203971004, "train_accuracy": 0.08006962576153177, "train_loss": 2.315518504541993, "val_accuracy": 0.1423611111111111, "val_loss": 2.2233494652642145}',1);
INSERT INTO "epochs" VALUES('old',1,1,'{"epoch": 1, "epoch_seconds": 4.9659817159999875, "examples_per_second": 456.6721246722626, "timestamp_ms": 1795203974234, "train_accuracy": 0.09138381201044386, "train_loss": 2.29931640625, "val_accuracy": 0.1111111111111111, "val_loss": 2.294226964314779}',1);
INSERT INTO "epochs" VALUES('old',1,2,'{"epoch": 2, "epoch_seconds": 4.399840601000051, "examples_per_second": 289.95078859069406, "timestamp_ms": 1795203983057, "train_accuracy": 0.11488250652741515, "train_loss": 2.2941631054857483, "val_accuracy": 0.1111111111111111, "val_loss": 2.291181352403429}',1);
INSERT INTO "epochs" VALUES('old',1,3,'{"epoch": 3, "epoch_seconds": 0.08769096100013485, "examples_per_second": 13394.643417962336, "timestamp_ms": 1795203983188, "train_accuracy": 0.12532637075718014, "train_loss": 2.2941694799145997, "val_accuracy": 0.12152777777777778, "val_loss": 2.28776486714681}',1);
INSERT INTO "epochs" VALUES('old',2,1,'{"epoch": 1, "epoch_seconds": 18.90732306799987, "examples_per_second": 64.10648946804893, "timestamp_ms": 1795203993357, "train_accuracy": 0.20800696257615317, "train_loss": 2.117909722788838, "val_accuracy": 0.3333333333333333, "val_loss": 1.6303077273898654}',1);
INSERT INTO "epochs" VALUES('old',3,1,'{"epoch": 1, "epoch_seconds": 4.1902998569999, "examples_per_second": 385.9203883473905, "timestamp_ms": 1795203995356, "train_accuracy": 0.515230635335074, "train_loss": 1.9486620498803306, "val_accuracy": 0.8368055555555556, "val_loss": 1.5807316038343642}',1);
INSERT INTO "epochs" VALUES('old',3,2,'{"epoch": 2, "epoch_seconds": 0.033888642999954754, "examples_per_second": 38022.468929575116, "timestamp_ms": 1795203995429, "train_accuracy": 0.8494342906875544, "train_loss": 1.3224407093124455, "val_accuracy": 0.8888888888888888, "val_loss": 1.0211395687527127}',1);
INSERT INTO "epochs" VALUES('old',3,3,'{"epoch": 3, "epoch_seconds": 0.12316909400010445, "examples_per_second": 9460.943438680528, "timestamp_ms": 1795203995552, "train_accuracy": 0.896431679721497, "train_loss": 0.8617558491759139, "val_accuracy": 0.9027777777777778, "val_loss": 0.664329899681939}',1);
INSERT INTO "epochs" VALUES('old',2,2,'{"epoch": 2, "epoch_seconds": 2.1580011579999336, "examples_per_second": 548.0686463487543, "timestamp_ms": 1795203996162, "train_accuracy": 0.46475195822454307, "train_loss": 1.388043462555755, "val_accuracy": 0.6701388888888888, "val_loss": 0.8670473098754883}',1);
INSERT INTO "epochs" VALUES('old',2,3,'{"epoch": 3, "epoch_seconds": 1.4656180310000764, "examples_per_second": 806.4740847729959, "timestamp_ms": 1795203997726, "train_accuracy": 0.6710182767624021, "train_loss": 0.9132788702132288, "val_accuracy": 0.7465277777777778, "val_loss": 0.7090188132392036}',1);
INSERT INTO "epochs" VALUES('old',4,1,'{"epoch": 1, "epoch_seconds": 3.189380925000023, "examples_per_second": 386.69923005799916, "timestamp_ms": 1795204002343, "train_accuracy": 0.5239338555265448, "train_loss": 1.9573618703764142, "val_accuracy": 0.7777777777777778, "val_loss": 1.6294833289252386}',1);
INSERT INTO "epochs" VALUES('old',4,2,'{"epoch": 2, "epoch_seconds": 0.006343577000052392, "examples_per_second": 201716.5038645226, "timestamp_ms": 1795204002359, "train_accuracy": 0.8520452567449956, "train_loss": 1.3278148840363904, "val_accuracy": 0.875, "val_loss": 1.0543704562717013}',1);
INSERT INTO "epochs" VALUES('old',4,3,'{"epoch": 3, "epoch_seconds": 0.011710110000194618, "examples_per_second": 104255.74869675595, "timestamp_ms": 1795204002372, "train_accuracy": 0.8938207136640557, "train_loss": 0.8403023370356016, "val_accuracy": 0.8854166666666666, "val_loss": 0.7019771999782987}',1);
INSERT INTO "epochs" VALUES('old',5,1,'{"epoch": 1, "epoch_seconds": 3.4839172289998714, "examples_per_second": 370.78431149929065, "timestamp_ms": 1795204007082, "train_accuracy": 0.2758920800696258, "train_loss": 1.9687621114148173, "val_accuracy": 0.4965277777777778, "val_loss": 1.2586112552218967}',1);
INSERT INTO "epochs" VALUES('old',5,2,'{"epoch": 2, "epoch_seconds": 1.083685173000049, "examples_per_second": 1121.1387272375557, "timestamp_ms": 1795204008213, "train_accuracy": 0.5056570931244561, "train_loss": 1.250200157065927, "val_accuracy": 0.6006944444444444, "val_loss": 0.9819356070624458}',1);
INSERT INTO "epochs" VALUES('old',5,3,'{"epoch": 3, "epoch_seconds": 1.3167250289998265, "examples_per_second": 916.3524742726344, "timestamp_ms": 1795204009621, "train_accuracy": 0.6562228024369017, "train_loss": 0.9106772533181027, "val_accuracy": 0.7951388888888888, "val_loss": 0.6080438825819228}',1);
INSERT INTO "epochs" VALUES('old',6,1,'{"epoch": 1, "epoch_seconds": 8.30196276699985, "examples_per_second": 153.23978636085553, "timestamp_ms": 1795204014152, "train_accuracy": 0.28372497824194953, "train_loss": 1.9828262262701262, "val_accuracy": 0.6215277777777778, "val_loss": 1.1822706858317058}',1);
INSERT INTO "epochs" VALUES('old',6,2,'{"epoch": 2, "epoch_seconds": 0.7915859979998459, "examples_per_second": 1487.3050225475072, "timestamp_ms": 1795204014972, "train_accuracy": 0.7110530896431679, "train_loss": 0.8533280574310542, "val_accuracy": 0.8298611111111112, "val_loss": 0.5926532745361328}',1);
INSERT INTO "epochs" VALUES('old',6,3,'{"epoch": 3, "epoch_seconds": 0.6020824529998663, "examples_per_second": 1988.987542036853, "timestamp_ms": 1795204015578, "train_accuracy": 0.8485639686684073, "train_loss": 0.4800096317619941, "val_accuracy": 0.8819444444444444, "val_loss": 0.37409061855740017}',1);
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
INSERT INTO "openings" VALUES(1,'af35ecfe40d007fc','old','final verdict',1795204017694);
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
INSERT INTO "studies" VALUES('old','{"address": null, "concurrent": null, "confirm_seeds": 2, "cpus_per_trial": 1, "data": "digits", "data_dir": null, "finalists": 1, "first_rung": 1, "gpus_per_trial": 0.0, "max_epochs": 3, "policy": "one-standard-error", "reduction": 3, "sampler": "tpe", "scheduler": "asha", "seed": 0, "space": "mlp", "study": "old", "tracking": {"artifact_root": "runs/artifacts", "experiment": "podium", "registered_model": "podium", "tracking_uri": "sqlite:///runs/mlflow.db"}, "trials": 3}','{"baseline": "44136fa355b3", "classes": 10, "data": "digits", "fingerprint": "d53f9a23e51cf8de", "git_commit": "unknown", "image_shape": [8, 8, 1], "seed": 0, "test_fingerprint": "af35ecfe40d007fc", "test_images": 360, "train_images": 1149, "validation_images": 288, "versions": {"keras": "3.15.1", "mlflow": "3.17.2", "numpy": "2.4.6", "optuna": "5.0.0", "podium-search": "0.1.0", "python": "3.11.7", "ray": "2.60.0", "scikit-learn": "1.9.1", "tensorflow": "2.21.0"}}','completed',NULL,1795203903138,1795204021840,'{"model": "models:/podium/1", "policy": "one-standard-error", "recommended": "44136fa355b3", "summary": "Recommended: the baseline, 9,610 parameters, validation accuracy 89.41% (standard error 1.063 points) over 2 fresh seeds.", "verdict": {"accuracy": {"high": 0.9268904515763143, "low": 0.8646631029127307, "value": 0.9}, "baseline_accuracy": {"high": 0.9268904515763143, "low": 0.8646631029127307, "value": 0.9}, "f1_macro": 0.8986713355552605, "images": 360, "only_baseline_right": 0, "only_recommended_right": 0, "openings": 1, "p_value": 1.0, "sentence": "Keep the baseline: no confirmed configuration was a better choice under the policy one-standard-error. It gets 90.00% (95% interval 86.47% to 92.69%) of the locked digits test images right."}}','3c5c560139ee4107a37e5d6dbd8bf639');
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
INSERT INTO "trials" VALUES('old',0,'search','{"batch_size":64,"decay":8.879341769741934e-05,"dropout":0.09007742321802537,"hidden":[85],"input_dropout":0.26178712399597476,"learning_rate":0.009352210481807422,"momentum":0.1628841299941022,"optimizer":"sgd"}',746405699,0,'completed',NULL,NULL,1795203908108,1795203971480,'{"best_epoch": 3, "f1_macro": 0.11664806933784957, "gap": 0.0, "parameters": 6385, "roc_auc_ovo": 0.6778940381146513, "train_accuracy": 0.1423611111111111, "val_accuracy": 0.1423611111111111, "val_loss": 2.2233494652642145, "wall_seconds": 6.291774475000011}','{"class_name": "SGD", "ema_momentum": 0.99, "learning_rate.class_name": "InverseTimeDecay", "learning_rate.config.decay_rate": 8.879341769741934e-05, "learning_rate.config.decay_steps": 1, "learning_rate.config.initial_learning_rate": 0.009352210481807422, "learning_rate.config.staircase": false, "momentum": 0.1628841299941022, "nesterov": false, "use_ema": false}',22844,'54c25db9ffda45ae96f0342ab8fedb87',1);
INSERT INTO "trials" VALUES('old',1,'search','{"batch_size":128,"decay":4.16476766757302e-06,"dropout":0.260403485892446,"hidden":[287,60,57,687],"input_dropout":0.0840727186158939,"learning_rate":0.0038181118217306036,"momentum":0.8096369457792789,"optimizer":"sgd"}',107832787,0,'completed',NULL,NULL,1795203908176,1795203983923,'{"best_epoch": 3, "f1_macro": 0.05941955878396556, "gap": 0.0034722222222222238, "parameters": 86138, "roc_auc_ovo": 0.7359715447812102, "train_accuracy": 0.125, "val_accuracy": 0.12152777777777778, "val_loss": 2.28776486714681, "wall_seconds": 17.265199277999955}','{"class_name": "SGD", "ema_momentum": 0.99, "learning_rate.class_name": "InverseTimeDecay", "learning_rate.config.decay_rate": 4.16476766757302e-06, "learning_rate.config.decay_steps": 1, "learning_rate.config.initial_learning_rate": 0.0038181118217306036, "learning_rate.config.staircase": false, "momentum": 0.8096369457792789, "nesterov": false, "use_ema": false}',22843,'59a3cf17752e46f6a536c4d6d6e8e33e',1);
INSERT INTO "trials" VALUES('old',2,'search','{"batch_size":128,"dropout":0.039077006377037315,"hidden":[1005,974,17,126,883],"input_dropout":0.0078119100787575,"learning_rate":0.003832862938343568}',2117250515,0,'completed',NULL,NULL,1795203971486,1795203999423,'{"best_epoch": 3, "f1_macro": 0.7059906190505101, "gap": -0.02430555555555558, "parameters": 1184993, "roc_auc_ovo": 0.9763517307438235, "train_accuracy": 0.7222222222222222, "val_accuracy": 0.7465277777777778, "val_loss": 0.7090188132392036, "wall_seconds": 27.890929520999862}','{"amsgrad": false, "beta_1": 0.9, "beta_2": 0.999, "class_name": "Adam", "ema_momentum": 0.99, "epsilon": 1e-07, "learning_rate": 0.0038328629452735186, "use_ema": false}',22844,'b00e7fcd3d1746229b83f93255f51922',1);
INSERT INTO "trials" VALUES('old',3,'confirm','{}',2033310270,2144525524,'completed',NULL,NULL,1795203983929,1795203996179,'{"best_epoch": 3, "f1_macro": 0.9009246068902952, "gap": 0.01041666666666663, "parameters": 9610, "roc_auc_ovo": 0.9950595676241168, "train_accuracy": 0.9131944444444444, "val_accuracy": 0.9027777777777778, "val_loss": 0.664329899681939, "wall_seconds": 11.55342376900012}','{"amsgrad": false, "beta_1": 0.9, "beta_2": 0.999, "class_name": "Adam", "ema_momentum": 0.99, "epsilon": 1e-07, "learning_rate": 0.0010000000474974513, "use_ema": false}',22843,'c5a7df513aaf457db85b39f15623ae5e',1);
INSERT INTO "trials" VALUES('old',4,'confirm','{}',697048940,1209775526,'completed',NULL,NULL,1795203996202,1795204003153,'{"best_epoch": 3, "f1_macro": 0.8850678177348493, "gap": 0.03472222222222221, "parameters": 9610, "roc_auc_ovo": 0.9873374478606343, "train_accuracy": 0.9201388888888888, "val_accuracy": 0.8854166666666666, "val_loss": 0.7019771999782987, "wall_seconds": 6.46077963699986}','{"amsgrad": false, "beta_1": 0.9, "beta_2": 0.999, "class_name": "Adam", "ema_momentum": 0.99, "epsilon": 1e-07, "learning_rate": 0.0010000000474974513, "use_ema": false}',22843,'3dc971ad536f4f9ab355d9c549daf0b5',1);
INSERT INTO "trials" VALUES('old',5,'confirm','{"batch_size":128,"dropout":0.039077006377037315,"hidden":[1005,974,17,126,883],"input_dropout":0.0078119100787575,"learning_rate":0.003832862938343568}',2033310270,2144525524,'completed',NULL,NULL,1795203999429,1795204013669,'{"best_epoch": 3, "f1_macro": 0.7717643709178296, "gap": 0.01736111111111116, "parameters": 1184993, "roc_auc_ovo": 0.9823426179825875, "train_accuracy": 0.8125, "val_accuracy": 0.7951388888888888, "val_loss": 0.6080438825819228, "wall_seconds": 10.671940472000188}','{"amsgrad": false, "beta_1": 0.9, "beta_2": 0.999, "class_name": "Adam", "ema_momentum": 0.99, "epsilon": 1e-07, "learning_rate": 0.0038328629452735186, "use_ema": false}',22844,'6bc70a1aec354e6fbe8d2bba0c26b38b',1);
INSERT INTO "trials" VALUES('old',6,'confirm','{"batch_size":128,"dropout":0.039077006377037315,"hidden":[1005,974,17,126,883],"input_dropout":0.0078119100787575,"learning_rate":0.003832862938343568}',697048940,1209775526,'completed',NULL,NULL,1795204003160,1795204017668,'{"best_epoch": 3, "f1_macro": 0.8791517291407942, "gap": 0.03125, "parameters": 1184993, "roc_auc_ovo": 0.9935323594360456, "train_accuracy": 0.9131944444444444, "val_accuracy": 0.8819444444444444, "val_loss": 0.37409061855740017, "wall_seconds": 12.673042662999933}','{"amsgrad": false, "beta_1": 0.9, "beta_2": 0.999, "class_name": "Adam", "ema_momentum": 0.99, "epsilon": 1e-07, "learning_rate": 0.0038328629452735186, "use_ema": false}',22843,'44c4c046ecc04829af6bfab70bc8ee09',1);
CREATE INDEX ix_openings_fingerprint ON openings (fingerprint);
COMMIT;
