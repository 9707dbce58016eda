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
}

/// A setting that the store accepted and did not apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// The name of the setting in the configuration.
    pub setting: &'static str,
    /// What the probe saw, as text for people.
    pub seen: &'static str,
}
