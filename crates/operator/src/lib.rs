//! The operator: reconcilers of `Cluster`, `Backup` and `ScheduledBackup`.
