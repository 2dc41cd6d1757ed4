//! Compiles wolfSSL with a C compiler and nothing else, from the sources in the package `wolfssl-sys`.
use std::env;
use std::path::PathBuf;
use std::process::Command;

const TLS: &[&str] = &[
    "dtls.c",
    "dtls13.c",
    "internal.c",
    "keys.c",
    "ssl.c",
    "tls.c",
    "tls13.c",
    "wolfio.c",
];

const CRYPTO: &[&str] = &[
    "aes.c",
    "asn.c",
    "chacha.c",
    "chacha20_poly1305.c",
    "coding.c",
    "cpuid.c",
    "curve25519.c",
    "ecc.c",
    "error.c",
    "fe_operations.c",
    "hash.c",
    "hmac.c",
    "kdf.c",
    "logging.c",
    "memory.c",
    "poly1305.c",
    "random.c",
    "sha.c",
    "sha256.c",
    "sha3.c",
    "sha512.c",
    "signature.c",
    "sp_int.c",
    "wc_encrypt.c",
    "wc_mlkem.c",
    "wc_mlkem_poly.c",
    "wc_port.c",
    "wolfmath.c",
];

fn main() {
    println!("cargo:rerun-if-changed=src");
    println!("cargo:rerun-if-changed=build.rs");

    let wolfssl = sources();
    let mut build = cc::Build::new();
    build
        .define("WOLFSSL_USER_SETTINGS", None)
        .include("src")
        .include(&wolfssl)
        .warnings(false)
        .file("src/records.c")
        .files(TLS.iter().map(|name| wolfssl.join("src").join(name)))
        .files(
            CRYPTO
                .iter()
                .map(|name| wolfssl.join("wolfcrypt/src").join(name)),
        )
        .compile("wolfssl");
}

/// Where cargo has put the sources: it downloads what a lock file names, also where no target needs it.
fn sources() -> PathBuf {
    let output = Command::new(env::var("CARGO").unwrap())
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .expect("cargo metadata");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );

    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let manifest = text
        .split("\"manifest_path\":\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(PathBuf::from)
        .find(|path| {
            path.parent()
                .and_then(|folder| folder.file_name())
                .is_some_and(|name| name.to_string_lossy().starts_with("wolfssl-sys-"))
        })
        .expect("the package wolfssl-sys among the dependencies");

    manifest.parent().unwrap().join("wolfssl-src")
}
