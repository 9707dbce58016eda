//! What a store really does, whatever it answers: found by [`crate::probe`], kept in the repository's record, and given
//! back to [`crate::open`] by every later command.

/// How a store keeps [`crate::PutMode::Create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ConditionalCreate {
    /// The store refuses the second write itself (`If-None-Match: *`, `link(2)`).
    #[default]
    Native,
    /// We look with HEAD before the write. Two writers in the same instant are not kept apart.
    Emulated,
}

/// Whether the checksum in the answer to a HEAD can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Checksums {
    /// The store refused bytes that did not match their checksum, and returns the checksum of what it stores.
    #[default]
    Kept,
    /// The store keeps none, or repeats the writer's value. To know what is stored, the object must be fetched.
    NotCompared,
}

/// How objects that are larger than one part are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Uploads {
    /// As multipart uploads.
    #[default]
    Parts,
    /// In one PUT, from memory: multipart uploads do not work on this store.
    Whole,
}

/// What was seen of the store's Object Lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Locks {
    /// Nobody asked for it.
    #[default]
    NotTried,
    /// An object got its date, and the date could be extended. Whether the store refuses to delete the object is not
    /// known, because our credentials may not delete the version of any object.
    Dates,
    /// The store also refused to delete the version of a locked object, and deleted that of an object without a lock.
    Enforced,
}

/// How an object that is uploaded in parts gets its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum LockedUploads {
    /// By the request that begins the upload.
    #[default]
    AtCreation,
    /// By one more request after the object was completed, because the store ignores the headers of that request.
    Afterwards,
}

/// Everything that was found about one store. The default is a store without faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Capabilities {
    /// The condition on a single PUT.
    pub create: ConditionalCreate,
    /// The condition on completing a multipart upload; some stores know it on PUT only. Has no meaning if uploads are
    /// [`Uploads::Whole`].
    pub create_by_parts: ConditionalCreate,
    /// Whether the checksum in the answer to a HEAD can be trusted.
    pub checksums: Checksums,
    /// How large objects are written.
    pub uploads: Uploads,
    /// What was seen of the store's Object Lock.
    pub locks: Locks,
    /// How an object that is uploaded in parts gets its lock.
    pub locked_uploads: LockedUploads,
}

/// What only the back end can try; see [`crate::Store::trials`]. The default is right for a store in this process.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Trials {
    /// Two creates that overlapped in time: whether one of them was refused.
    pub overlapping: ConditionalCreate,
    /// The condition on completing a multipart upload.
    pub create_by_parts: ConditionalCreate,
    /// Whether the checksum in the answer to a HEAD can be trusted.
    pub checksums: Checksums,
    /// Whether multipart uploads work.
    pub uploads: Uploads,
    /// Why multipart uploads do not work, as text for people.
    pub uploads_fault: Option<String>,
    /// Settings that the store accepted and did not apply.
    pub dropped: Vec<Dropped>,
    /// What was seen of the store's Object Lock.
    pub locks: Locks,
    /// How an object that is uploaded in parts gets its lock.
    pub locked_uploads: LockedUploads,
    /// Why locks do not work, as text for people, although the configuration asks for them.
    pub locks_fault: Option<String>,
}

/// A setting that the store accepted and did not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The name of the setting in the configuration.
    pub setting: &'static str,
    /// What the probe saw, as text for people.
    pub seen: &'static str,
}
