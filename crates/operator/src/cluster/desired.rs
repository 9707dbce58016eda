//! The desired state: the manifest after validation, with a few facts from elsewhere.

use holdfast_kube_api::ClusterSpec;
use holdfast_kube_api::cluster::OperatorIdentity;

/// A validated `Cluster`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Desired {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.uid`, for owner references.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// The spec with its defaults.
    pub spec: ClusterSpec,
    /// Whether not even the fields of the spec could be read. Then `spec` is empty.
    pub unreadable: bool,
    /// Why the spec is invalid; empty if it is valid.
    pub errors: Vec<Complaint>,
    /// What has another effect than it says, or none.
    pub warnings: Vec<Complaint>,
    /// The images that the operator was started with.
    pub images: Images,
    /// The operator itself.
    pub operator: Option<OperatorIdentity>,
    /// When a person last asked for a restart of all pods: the value of an annotation.
    pub restarted_at: Option<String>,
}

/// An error or a warning about a field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Complaint {
    /// The field, such as `spec.instances`.
    pub path: String,
    /// The reason in camel case, from a closed set.
    pub reason: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Images that the operator was started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Images {
    /// The operator's own image, for the init container that copies the instance manager.
    pub operator: String,
    /// The PostgreSQL image of clusters that name none.
    pub postgres: String,
}

impl Desired {
    /// The image of PostgreSQL for this cluster.
    pub fn image(&self) -> &str {
        self.spec.image_name.as_deref().unwrap_or(&self.images.postgres)
    }

    /// PostgreSQL's major version from the image's tag, such as 18 of `postgresql:18.1-bookworm`.
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
