"""The parameters of estimators, in groups that document and check the parameters they declare."""
