//! Certificates as an agent reads them, by another implementation than the one that makes them.

use candid::Principal;
use execution::SubnetConfig;
use ic_cbor::CertificateToCbor;
use ic_certificate_verification::VerifyCertificate;
use ic_certification::{Certificate, LookupResult};

/// A certificate whose signature and root were verified.
pub(crate) struct Verified(Certificate);

/// Verifies against a root key in DER. `time`: that of the certificate, where it is known.
#[track_caller]
pub(crate) fn verified(certificate: &[u8], root_key: &[u8], time: Option<u64>) -> Verified {
    let certificate = Certificate::from_cbor(certificate).expect("a certificate is CBOR");
    let (time, tolerance) = (time.map_or(0, u128::from), if time.is_some() { 0 } else { u128::MAX });
    certificate.verify(&[], root_key, &time, &tolerance).expect("a certificate verifies");
    Verified(certificate)
}

/// The certified data in a data certificate that a canister gave in `bulkhead drun`.
#[track_caller]
pub(crate) fn data_from_drun(certificate: Option<Vec<u8>>, canister: Principal) -> Vec<u8> {
    let certificate = certificate.expect("a query has a certificate");
    let key = SubnetConfig::application().root_key;
    verified(&certificate, &key, None).data(canister).expect("a data certificate has certified data")
}

impl Verified {
    /// The value at a path; `None`: proven to be missing.
    #[track_caller]
    pub(crate) fn value(&self, path: &[Vec<u8>]) -> Option<Vec<u8>> {
        match self.0.tree.lookup_path(path) {
            LookupResult::Found(value) => Some(value.to_vec()),
            LookupResult::Absent => None,
            other => panic!("{other:?} at {path:?}"),
        }
    }

    /// The certified data of a canister.
    #[track_caller]
    pub(crate) fn data(&self, canister: Principal) -> Option<Vec<u8>> {
        self.value(&[b"canister".to_vec(), canister.as_slice().to_vec(), b"certified_data".to_vec()])
    }
}
