//! Whom to trust: the configured authority where there is one, the public ones otherwise.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
#[error(
    "the certificate authority in {file} cannot be used: {problem}; put its PEM certificates into the ConfigMap of spec.venue.coinbase.caBundle"
)]
pub struct CaError {
    file: String,
    problem: String,
}

/// A configuration without ALPN that trusts only the certificates of `ca_file`, or Mozilla's list where there is none.
///
/// # Errors
/// The file cannot be read or holds no certificate that can be used.
pub fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, CaError> {
    let file = ca_file.map(|file| file.display().to_string()).unwrap_or_default();
    let error = |problem: String| CaError { file: file.clone(), problem };
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let pem = std::fs::read(path).map_err(|e| error(e.to_string()))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|e| error(e.to_string()))?;
                roots.add(certificate).map_err(|e| error(e.to_string()))?;
            }
            if roots.is_empty() {
                return Err(error("it holds no certificate".to_owned()));
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| error(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// Whether something failed because a certificate is not trusted: looks through the causes for rustls's word.
pub fn is_untrusted(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref::<rustls::Error>() {
            return true;
        }
        // An io::Error shows the error inside it as itself, not as its source.
        if let Some(inner) = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref)
            && is_untrusted(inner)
        {
            return true;
        }
        next = error.source();
    }
    false
}

/// An error and its causes in one line, without repetitions.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
