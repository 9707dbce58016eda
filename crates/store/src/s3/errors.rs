//! What S3's answers mean: from the SDK's error to a [`StoreErrorKind`] and a sentence for people.
//!
//! The invariant: `NotFound` only if the store named the missing thing (`NoSuchKey`, `NoSuchUpload`, or a 404 to a
//! HEAD, which has no body; there [`super::S3Store`] asks again). Another 404, perhaps of a proxy, is `Other`.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use rustls::CertificateError;

use super::credentials;
use super::tunnel::Refused;
use crate::error::NO_CREDENTIALS_CAME;
use crate::tls::IssuerIsNoAuthority;
use crate::{Operation, StoreErrorKind};

/// An error that does not yet name its store and object.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) kind: StoreErrorKind,
    /// Code, status and message as the store gave them.
    pub(super) detail: String,
    /// S3's error code; empty if there was none.
    pub(super) code: String,
}

/// Judges any failure of an SDK call.
pub(super) fn judge<E>(operation: Operation, error: &SdkError<E, HttpResponse>) -> Judged
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let raw = service.raw();
            let region = raw.headers().get("x-amz-bucket-region");
            let body = raw.body().bytes().map(String::from_utf8_lossy).unwrap_or_default();
            let status = raw.status().as_u16();
            let code = service.err().code().unwrap_or_default();
            let mut judged = judge_answer(&Answer {
                operation,
                status,
                code,
                message: service.err().message().unwrap_or_default(),
                region: region.or_else(|| element(&body, "Region")),
                endpoint: element(&body, "Endpoint"),
            });
            // A success that cannot be parsed is the store's own dialect. Only the parser can say what is odd about it.
            if code.is_empty() && (200..300).contains(&status) {
                judged.detail = format!("HTTP {status} with an answer that cannot be parsed: {}", below(service.err()));
            }
            judged
        }
        SdkError::ResponseError(response) => Judged {
            kind: StoreErrorKind::Unreachable,
            detail: format!("HTTP {} with an unreadable body: {}", response.raw().status().as_u16(), chain(error)),
            code: String::new(),
        },
        SdkError::TimeoutError(_) => judged(StoreErrorKind::Timeout, chain(error)),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => judged(StoreErrorKind::Timeout, chain(error)),
        _ => judge_local(error),
    }
}

pub(super) fn judged(kind: StoreErrorKind, detail: String) -> Judged {
    Judged { kind, detail, code: String::new() }
}

/// A request that got no answer: credentials, a proxy, TLS, or the network.
fn judge_local<E>(error: &SdkError<E, HttpResponse>) -> Judged
where
    E: Error + 'static,
{
    for cause in causes(error) {
        if let Some(error) = cause.downcast_ref::<CredentialsError>() {
            return credentials::judge(error);
        }
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return judged(refused.kind(), refused.to_string());
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return judge_tls(tls).unwrap_or_else(|| judged(StoreErrorKind::Unreachable, chain(cause)));
        }
    }
    let text = chain(error);
    if text.contains("identity resolver timed out") {
        return judged(StoreErrorKind::Timeout, format!("{NO_CREDENTIALS_CAME}{text}"));
    }
    match error {
        SdkError::ConstructionFailure(_) => judged(StoreErrorKind::InvalidConfig, text),
        SdkError::DispatchFailure(failure) if failure.is_user() => judged(StoreErrorKind::InvalidConfig, text),
        _ => judged(StoreErrorKind::Unreachable, text),
    }
}

/// An error and all its sources.
pub(super) fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&cause| {
        // `io::Error` hides what it wraps from `source` of some layers.
        match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        }
    })
}

/// Judges a certificate that is not trusted; `None` for other failures of TLS.
pub(super) fn judge_tls(tls: &rustls::Error) -> Option<Judged> {
    let (text, advice) = match tls {
        rustls::Error::InvalidCertificate(fault) => (tls.to_string(), certificate_advice(fault)),
        rustls::Error::Other(other) => {
            let found = other.0.downcast_ref::<IssuerIsNoAuthority>()?;
            (found.to_string(), found.advice())
        }
        _ => return None,
    };
    let detail = format!("the server's certificate is not trusted ({text}); {advice}");
    Some(judged(StoreErrorKind::BadCertificate, detail))
}

/// What to do about a certificate that is not trusted.
fn certificate_advice(fault: &CertificateError) -> &'static str {
    use CertificateError as Fault;
    match fault {
        Fault::Expired | Fault::ExpiredContext { .. } => "it has expired: renew it on the server",
        Fault::NotValidYet | Fault::NotValidYetContext { .. } => {
            "it is not valid yet: set this machine's clock, or wait"
        }
        Fault::NotValidForName | Fault::NotValidForNameContext { .. } => {
            "it is not for the host in `endpoint`: write the server's name there as in its certificate \
             (subjectAltName; a common name does not count)"
        }
        Fault::UnknownIssuer => "set `ca_file` to the certificate of its CA",
        Fault::BadSignature => {
            "the trusted CA with that name has another key: set `ca_file` to the CA that signed it, or list the \
             certificate itself there"
        }
        Fault::Revoked => "its issuer has revoked it: give the server a new one",
        Fault::InvalidPurpose | Fault::InvalidPurposeContext { .. } => {
            "it is not a certificate for servers: make one with extendedKeyUsage serverAuth"
        }
        // webpki has no variant for this one. It is the kind that `openssl req -x509` makes by default.
        Fault::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "it is the certificate of a CA and is not in `ca_file`: add it there, or make one for the server that is \
             not a CA's"
        }
        _ => "make a new one for the server, and set `ca_file` to the certificate of its CA",
    }
}

/// The relevant parts of an error answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub(super) operation: Operation,
    pub(super) status: u16,
    pub(super) code: &'a str,
    pub(super) message: &'a str,
    pub(super) region: Option<&'a str>,
    pub(super) endpoint: Option<&'a str>,
}

/// Judges an answer by its code, then by its status.
pub(super) fn judge_answer(answer: &Answer<'_>) -> Judged {
    use StoreErrorKind as Kind;
    let Answer { operation, status, code, message, region, endpoint } = *answer;
    let on_upload = matches!(operation, Operation::Part | Operation::Complete | Operation::Abort);
    let kind = match (code, status) {
        ("NoSuchUpload", _) if on_upload => Kind::NotFound,
        ("" | "NotFound", 404) if operation == Operation::Head => Kind::NotFound,
        _ if is_read(operation) && is_of_key(code, message) => Kind::KeyRefused,
        _ => kind_of_code(code).unwrap_or_else(|| kind_of_status(status)),
    };
    let mut detail = format!("HTTP {status}");
    for part in [" ", code, if message.is_empty() { "" } else { ": " }, message] {
        detail.push_str(part);
    }
    let mut detail = detail.trim_end().to_owned();
    if kind == Kind::InvalidConfig {
        let redirected = matches!(status, 301 | 307 | 308) || code == "AuthorizationHeaderMalformed";
        match (region, endpoint) {
            (Some(region), _) if redirected => {
                detail.push_str("; the bucket is in region \"");
                detail.push_str(region);
                detail.push_str("\": set `region`");
            }
            (None, None) if redirected && expected_region(message).is_some() => {
                detail.push_str("; the store is in region \"");
                detail.push_str(expected_region(message).unwrap_or_default());
                detail.push_str("\": set `region`");
            }
            (None, Some(endpoint)) if redirected => {
                detail.push_str("; the bucket is served by ");
                detail.push_str(endpoint);
                detail.push_str(": set `endpoint` and `region`");
            }
            _ => {}
        }
    }
    Judged { kind, detail, code: code.to_owned() }
}

/// Whether the request returns bytes of one object. Only such a request says something about the key of that object; a
/// write says something about the key that we configured.
fn is_read(operation: Operation) -> bool {
    matches!(operation, Operation::Get | Operation::GetRange | Operation::GetTail)
}

/// Whether the key service refuses the key of the object. It also refuses in words, under the code of a policy.
fn is_of_key(code: &str, message: &str) -> bool {
    match code {
        "KMS.DisabledException" | "KMS.NotFoundException" | "KMS.KMSInvalidStateException" => true,
        "AccessDenied" => message.contains("kms:Decrypt"),
        _ => false,
    }
}

/// What S3's error codes mean, with those of MinIO and Ceph that S3 does not have.
fn kind_of_code(code: &str) -> Option<StoreErrorKind> {
    use StoreErrorKind as Kind;
    Some(match code {
        "NoSuchKey" => Kind::NotFound,
        "NoSuchBucket" => Kind::NoSuchBucket,
        "PreconditionFailed" => Kind::AlreadyExists,
        "RequestTimeTooSkewed" => Kind::ClockSkew,
        // A 409 means two conditional writes at the same moment. The request is repeated and then gets a clear answer.
        "ConditionalRequestConflict"
        | "OperationAborted"
        | "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "ServiceUnavailable"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequests"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded" => Kind::Throttled,
        "RequestTimeout" => Kind::Timeout,
        // The bytes were damaged on the way; sending them again helps.
        "BadDigest"
        | "InvalidDigest"
        | "XAmzContentChecksumMismatch"
        | "XAmzContentSHA256Mismatch"
        | "IncompleteBody"
        | "InternalError" => Kind::Unreachable,
        "InsufficientStorage"
        | "QuotaExceeded"
        | "XMinioStorageFull"
        | "XMinioAdminBucketQuotaExceeded"
        | "InsufficientCapacity" => Kind::NoSpace,
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException"
        | "InvalidRequest"
        | "InvalidArgument"
        | "InvalidBucketName"
        | "EntityTooSmall"
        | "EntityTooLarge"
        | "KeyTooLongError"
        | "InvalidPart"
        | "InvalidPartOrder"
        | "InvalidStorageClass"
        | "InvalidTag"
        | "MissingContentMD5" => Kind::InvalidConfig,
        "InvalidRange" => Kind::Truncated,
        // Scality's servers use the second code while the object is being restored.
        "InvalidObjectState" | "RestoreAlreadyInProgress" => Kind::Archived,
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "AccountProblem"
        | "AllAccessDisabled" => Kind::PermissionDenied,
        "NotImplemented" | "MethodNotAllowed" => Kind::Unsupported,
        _ => return None,
    })
}

/// What the status means if the code is missing or unknown.
fn kind_of_status(status: u16) -> StoreErrorKind {
    use StoreErrorKind as Kind;
    match status {
        301 | 307 | 308 => Kind::InvalidConfig,
        401 | 403 => Kind::PermissionDenied,
        405 | 501 => Kind::Unsupported,
        // Only proxies send this status.
        407 => Kind::ProxyRefused,
        408 => Kind::Timeout,
        412 => Kind::AlreadyExists,
        416 => Kind::Truncated,
        429 | 503 => Kind::Throttled,
        507 => Kind::NoSpace,
        500..=599 => Kind::Unreachable,
        _ => Kind::Other,
    }
}

/// The region in a message like Garage's, which is the only place where Garage names it: "..., expected:
/// 20261129/garage/s3/aws4_request".
fn expected_region(message: &str) -> Option<&str> {
    let (_, scope) = message.rsplit_once("expected")?;
    let (before, _) = scope.split_once("/s3/aws4_request")?;
    let (_, region) = before.rsplit_once('/')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (!region.is_empty() && region.bytes().all(plain)).then_some(region)
}

/// The text of the first `<tag>` of an XML answer; enough for S3's flat errors.
fn element<'a>(body: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{tag}>"))?;
    let (text, _) = rest.split_once('<')?;
    Some(text)
}

/// The sources of an error in one line; the error itself if it has none.
fn below(error: &(dyn Error + 'static)) -> String {
    error.source().map_or_else(|| chain(error), chain)
}

/// An error and its sources in one line, without repetitions.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        let part = cause.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        below = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_code_and_status() {
        use StoreErrorKind as Kind;
        let plain =
            |operation, status, code| Answer { operation, status, code, message: "", region: None, endpoint: None };
        for (operation, status, code, kind) in [
            (Operation::Get, 404, "NoSuchKey", Kind::NotFound),
            (Operation::Get, 404, "", Kind::Other),
            (Operation::Get, 404, "NotFound", Kind::Other),
            (Operation::Head, 404, "", Kind::NotFound),
            (Operation::Get, 404, "NoSuchBucket", Kind::NoSuchBucket),
            (Operation::Complete, 404, "NoSuchUpload", Kind::NotFound),
            (Operation::Get, 404, "NoSuchUpload", Kind::Other),
            (Operation::Put, 412, "PreconditionFailed", Kind::AlreadyExists),
            (Operation::Put, 409, "ConditionalRequestConflict", Kind::Throttled),
            (Operation::Put, 403, "AccessDenied", Kind::PermissionDenied),
            (Operation::Put, 403, "RequestTimeTooSkewed", Kind::ClockSkew),
            (Operation::Head, 403, "", Kind::PermissionDenied),
            (Operation::Put, 503, "SlowDown", Kind::Throttled),
            (Operation::Put, 429, "", Kind::Throttled),
            (Operation::Put, 500, "InternalError", Kind::Unreachable),
            (Operation::Put, 502, "", Kind::Unreachable),
            (Operation::Put, 507, "XMinioStorageFull", Kind::NoSpace),
            (Operation::Put, 400, "RequestTimeout", Kind::Timeout),
            (Operation::Put, 400, "BadDigest", Kind::Unreachable),
            (Operation::Put, 400, "InvalidDigest", Kind::Unreachable),
            (Operation::Part, 400, "XAmzContentChecksumMismatch", Kind::Unreachable),
            (Operation::Part, 400, "XAmzContentSHA256Mismatch", Kind::Unreachable),
            (Operation::Delete, 501, "NotImplemented", Kind::Unsupported),
            (Operation::GetRange, 416, "InvalidRange", Kind::Truncated),
            (Operation::Get, 403, "InvalidObjectState", Kind::Archived),
            (Operation::GetRange, 409, "RestoreAlreadyInProgress", Kind::Archived),
            (Operation::GetTail, 400, "KMS.DisabledException", Kind::KeyRefused),
            (Operation::Get, 400, "KMS.NotFoundException", Kind::KeyRefused),
            (Operation::GetRange, 400, "KMS.KMSInvalidStateException", Kind::KeyRefused),
            // The key that we configured: this is not a matter of one object.
            (Operation::Put, 400, "KMS.DisabledException", Kind::Other),
            (Operation::Put, 418, "Teapot", Kind::Other),
            (Operation::Put, 407, "", Kind::ProxyRefused),
        ] {
            assert_eq!(judge_answer(&plain(operation, status, code)).kind, kind, "{operation} {status} {code}");
        }
    }

    #[test]
    fn a_policy_of_the_key_is_not_taken_for_one_of_the_bucket() {
        let answer = |operation, message| Answer {
            operation,
            status: 403,
            code: "AccessDenied",
            message,
            region: None,
            endpoint: None,
        };
        let of_key = "User: arn:aws:iam::1:user/holdfast is not authorized to perform: kms:Decrypt on resource: \
                      arn:aws:kms:eu-central-1:1:key/2 because no identity-based policy allows the kms:Decrypt action";
        assert_eq!(judge_answer(&answer(Operation::Get, of_key)).kind, StoreErrorKind::KeyRefused);
        assert_eq!(judge_answer(&answer(Operation::Complete, of_key)).kind, StoreErrorKind::PermissionDenied);
        assert_eq!(judge_answer(&answer(Operation::Get, "Access Denied")).kind, StoreErrorKind::PermissionDenied);
    }

    #[test]
    fn a_wrong_region_names_the_right_one() {
        let answer = Answer {
            operation: Operation::Put,
            status: 301,
            code: "PermanentRedirect",
            message: "use the other",
            region: Some("eu-central-1"),
            endpoint: None,
        };
        let judged = judge_answer(&answer);
        assert_eq!(judged.kind, StoreErrorKind::InvalidConfig);
        assert_eq!(
            judged.detail,
            "HTTP 301 PermanentRedirect: use the other; the bucket is in region \"eu-central-1\": set `region`"
        );
        let message = "Authorization header malformed, unexpected scope: 20261129/us-east-1/s3/aws4_request, expected: \
                       20261129/garage/s3/aws4_request";
        let garage = Answer { status: 400, code: "AuthorizationHeaderMalformed", message, region: None, ..answer };
        assert!(judge_answer(&garage).detail.ends_with("; the store is in region \"garage\": set `region`"));
        assert_eq!(expected_region("the expected thing"), None);
        assert_eq!(element("<Error><Region>eu-west-1</Region></Error>", "Region"), Some("eu-west-1"));
        assert_eq!(element("<Error><Region>eu-", "Region"), None);
    }
}
