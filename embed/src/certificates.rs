//! Where a script finds the system's certificates: the OpenSSL inside looks where Debian keeps them.

use std::path::Path;

const DEBIAN: &str = "/usr/lib/ssl/certs";

/// Where other distributions keep theirs, in one file (the places that Go's crypto/x509 and curl's configure script try too).
const ELSEWHERE: [&str; 4] = [
    "/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",                            // openSUSE
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL 7
    "/etc/ssl/cert.pem",                                 // Alpine
];

/// Names the file by SSL_CERT_FILE, unless the user has named one or the built-in place exists. Before any thread starts.
pub fn locate() {
    let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().any(|name| std::env::var_os(name).is_some());
    if named || Path::new(DEBIAN).exists() {
        return;
    }
    if let Some(file) = ELSEWHERE.iter().find(|file| Path::new(file).is_file()) {
        // SAFETY: main calls this first thing, while the process has one thread.
        unsafe { std::env::set_var("SSL_CERT_FILE", file) };
    }
}
