//! The desired state: the manifest after validation, with the few facts that come from elsewhere.

use holdfast_kube_api::ClusterSpec;

/// A `Cluster` as it is meant.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid; what it owns refers to it.
    pub uid: String,
    /// Generation of the spec.
    pub generation: i64,
    /// The spec, normalised.
    pub spec: ClusterSpec,
    /// Whether not even the fields of the spec could be read, so that `spec` says nothing.
    pub unreadable: bool,
    /// Why the spec cannot be followed; empty when it can.
    pub errors: Vec<Complaint>,
    /// What is followed differently from how it is written, or not at all.
    pub warnings: Vec<Complaint>,
    /// What the operator was started with.
    pub images: Images,
}

/// Something about a field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Complaint {
    /// The field, such as `spec.instances`.
    pub path: String,
    /// Of a closed set, in camel case.
    pub reason: String,
    /// What is the matter, with what to do.
    pub message: String,
}

/// Images that the operator was started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Images {
    /// Its own, for the init container that brings the instance manager.
    pub operator: String,
    /// PostgreSQL's where the cluster names none.
    pub postgres: String,
}

impl Desired {
    /// The image of PostgreSQL.
    pub fn image(&self) -> &str {
        self.spec.image_name.as_deref().unwrap_or(&self.images.postgres)
    }

    /// PostgreSQL's major version by the image's tag, such as 18 of `postgresql:18.1-bookworm`.
    pub fn image_major(&self) -> Option<u16> {
        let image = self.image().split('@').next().unwrap_or_default();
        let (_, tag) = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'))?;
        let digits: String = tag.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_names_the_major_version() {
        for (image, major) in [
            ("ghcr.io/example/postgresql:18", Some(18)),
            ("postgresql:15.4-bookworm", Some(15)),
            ("registry.example:5000/postgresql", None),
            ("postgresql:16@sha256:0000", Some(16)),
            ("postgresql:latest", None),
        ] {
            let mut desired = Desired::default();
            desired.spec.image_name = Some(image.to_owned());
            assert_eq!(desired.image_major(), major, "{image}");
        }
    }
}
