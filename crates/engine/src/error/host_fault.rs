//! [`HostFault`]: the fault of this host, and not of a backup.

/// What a host lacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostFault {
    /// Room on a disk, or in a quota.
    Full,
    /// Memory, processes, open files or a disk that works; or a process was ended from outside.
    Other,
}
