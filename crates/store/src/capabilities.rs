//! What a store was seen to do, as against what it answers: found by [`crate::probe`], kept in the repository's record,
//! and given back to [`crate::open`] by every later command.

/// How a store keeps [`crate::PutMode::Create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ConditionalCreate {
    /// The store refuses the second write itself (`If-None-Match: *`, `link(2)`).
    #[default]
    Native,
    /// We look with HEAD before the write. Two writers in the same instant are not kept apart.
    Emulated,
}

/// What the checksum of a HEAD is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Checksums {
    /// The store refused bytes that did not fit their checksum, and repeats the one of what it keeps.
    #[default]
    Kept,
    /// The store keeps none, or repeats what the writer claimed: who wants to know what is stored has to fetch it.
    NotCompared,
}

/// How objects that are larger than one part are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Uploads {
    /// As multipart uploads.
    #[default]
    Parts,
    /// In one PUT, out of memory: multipart uploads do not work on this store.
    Whole,
}

/// All that was found about one store. The default is a store without faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Capabilities {
    /// Creating by one PUT.
    pub create: ConditionalCreate,
    /// Creating by completing a multipart upload; there are stores that know the condition on PUT only. Says nothing
    /// where uploads are [`Uploads::Whole`].
    pub create_by_parts: ConditionalCreate,
    /// What the checksum of a HEAD is worth.
    pub checksums: Checksums,
    /// How large objects are written.
    pub uploads: Uploads,
}

/// What only the back end can try; see [`crate::Store::trials`]. The default is that of a store in this process.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Trials {
    /// Two creates that overlapped in time: whether one of them was refused.
    pub overlapping: ConditionalCreate,
    /// Creating by completing a multipart upload.
    pub create_by_parts: ConditionalCreate,
    /// What the checksum of a HEAD is worth.
    pub checksums: Checksums,
    /// Whether multipart uploads work.
    pub uploads: Uploads,
    /// Why they do not.
    pub uploads_fault: Option<String>,
    /// Settings that the store accepted and then did nothing about.
    pub dropped: Vec<Dropped>,
}

/// A setting that the store accepted and then did nothing about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// Its name in the configuration.
    pub setting: &'static str,
    /// How that showed.
    pub seen: &'static str,
}
