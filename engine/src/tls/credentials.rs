//! For tests: certificates and their keys, as an attacker would put them together, and those that everybody should judge alike.

use std::ops::Range;

use libp2p_identity::Keypair;
use libp2p_tls::certificate;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::OwnCertificate;

/// An extension's content, by the certificate's public key.
pub type Content<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;

/// Years in which tests run.
pub const ALWAYS: Range<i32> = 1975..4000;

const EXTENSION: &[u64] = &[1, 3, 6, 1, 4, 1, 53594, 1, 1];

/// A certificate and its key, as an attacker would put them together.
pub struct Credentials {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Credentials {
    pub fn honest(identity: &Keypair) -> Self {
        let (certificate, key) = certificate::generate(identity).unwrap();
        Self {
            chain: vec![certificate],
            key,
        }
    }

    /// A self-signed certificate with these extensions, valid in these years.
    pub fn made(extensions: &[Content], years: Range<i32>) -> Self {
        Self::named("", extensions, years)
    }

    /// The same with a name, which libp2p has no use for.
    pub fn named(name: &str, extensions: &[Content], years: Range<i32>) -> Self {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        for content in extensions {
            let content = content(&key.public_key_der());
            params
                .custom_extensions
                .push(rcgen::CustomExtension::from_oid_content(EXTENSION, content));
        }
        Self::signed(params, key)
    }

    /// Another peer's public key in the extension, signed with a key of one's own.
    pub fn claimed() -> Self {
        let (victim, own) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
        Self::made(&[&|key| signed_key(&victim, &own, key)], ALWAYS)
    }

    /// Another peer's signature, over the key of another certificate than this.
    pub fn transplanted() -> Self {
        let victim = Keypair::generate_ed25519();
        let extension = |_: &[u8]| signed_key(&victim, &victim, b"another key");
        Self::made(&[&extension], ALWAYS)
    }

    /// Another peer's certificate, without its private key.
    pub fn replayed() -> Self {
        let victim = Self::honest(&Keypair::generate_ed25519());
        let own = Self::honest(&Keypair::generate_ed25519());
        Self {
            chain: victim.chain,
            key: own.key,
        }
    }

    /// A well-made certificate, valid in these years.
    pub fn valid_in(years: Range<i32>) -> Self {
        let identity = Keypair::generate_ed25519();
        Self::made(&[&|key| signed_key(&identity, &identity, key)], years)
    }

    /// A certificate with so many well-made extensions.
    pub fn with_extensions(count: usize) -> Self {
        let identity = Keypair::generate_ed25519();
        let content = |key: &[u8]| signed_key(&identity, &identity, key);
        Self::made(&vec![&content as Content; count], ALWAYS)
    }

    /// A well-made certificate with so many bytes of something else.
    pub fn of_size(size: usize) -> Self {
        let identity = Keypair::generate_ed25519();
        let mut params = rcgen::CertificateParams::default();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let content = signed_key(&identity, &identity, &key.public_key_der());
        params.custom_extensions = vec![
            rcgen::CustomExtension::from_oid_content(EXTENSION, content),
            rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 53594, 9], vec![5; size]),
        ];
        Self::signed(params, key)
    }

    fn signed(params: rcgen::CertificateParams, key: rcgen::KeyPair) -> Self {
        let certificate = params.self_signed(&key).unwrap();
        Self {
            chain: vec![certificate.into()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }

    /// As what one side shows, of which there is one certificate only.
    pub fn own(mut self) -> OwnCertificate {
        let certificate = self.chain.remove(0);
        OwnCertificate {
            public_key_info: super::public_key_info(&certificate).unwrap_or_default(),
            certificate,
            private_key: self.key,
        }
    }
}

/// The extension's content: an identity's public key, and a signature over the certificate's key. DER by hand: all lengths
/// are below 128.
pub fn signed_key(claimed: &Keypair, signer: &Keypair, certificate_key: &[u8]) -> Vec<u8> {
    let public_key = claimed.public().encode_protobuf();
    let signature = signer
        .sign(&[b"libp2p-tls-handshake:", certificate_key].concat())
        .unwrap();
    let mut content = vec![0x04, public_key.len() as u8];
    content.extend(public_key);
    content.extend([0x04, signature.len() as u8]);
    content.extend(signature);
    content.splice(0..0, [0x30, content.len() as u8]);
    content
}

/// The test vectors of the libp2p TLS specification: whose certificate it is, if it is a valid one.
pub const VECTORS: &[(&str, Option<&str>, &str)] = &[
    (
        "an Ed25519 identity",
        Some("12D3KooWJRSrypvnpHgc6ZAgyCni4KcSmbV7uGRaMw5LgMKT18fq"),
        "308201773082011ea003020102020900f5bd0debaa597f52300a06082a8648ce3d04030230003020170d3735303130313030303030305a\
         180f34303936303130313030303030305a30003059301306072a8648ce3d020106082a8648ce3d030107034200046bf9871220d71dcb34\
         83ecdfcbfcc7c103f8509d0974b3c18ab1f1be1302d643103a08f7a7722c1b247ba3876fe2c59e26526f479d7718a85202ddbe47562358\
         a37f307d307b060a2b0601040183a25a01010101ff046a30680424080112207fda21856709c5ae12fd6e8450623f15f11955d384212b89\
         f56e7e136d2e17280440aaa6bffabe91b6f30c35e3aa4f94b1188fed96b0ffdd393f4c58c1c047854120e674ce64c788406d1c2c4b1165\
         81fd7411b309881c3c7f20b46e54c7e6fe7f0f300a06082a8648ce3d040302034700304402207d1a1dbd2bda235ff2ec87daf006f9b04b\
         a076a5a5530180cd9c2e8f6399e09d0220458527178c7e77024601dbb1b256593e9b96d961b96349d1f560114f61a87595",
    ),
    (
        "an invalid signature",
        None,
        "308201773082011da003020102020830a73c5d896a1109300a06082a8648ce3d04030230003020170d3735303130313030303030305a18\
         0f34303936303130313030303030305a30003059301306072a8648ce3d020106082a8648ce3d03010703420004bbe62df9a7c1c46b7f1f\
         21d556deec5382a36df146fb29c7f1240e60d7d5328570e3b71d99602b77a65c9b3655f62837f8d66b59f1763b8c9beba3be07778043a3\
         7f307d307b060a2b0601040183a25a01010101ff046a3068042408011220ec8094573afb9728088860864f7bcea2d4fd412fef09a8e2d2\
         4d482377c20db60440ecabae8354afa2f0af4b8d2ad871e865cb5a7c0c8d3dbdbf42de577f92461a0ebb0a28703e33581af7d2a4f2270f\
         c37aec6261fcc95f8af08f3f4806581c730a300a06082a8648ce3d040302034800304502202dfb17a6fa0f94ee0e2e6a3b9fb6e986f311\
         dee27392058016464bd130930a61022100ba4b937a11c8d3172b81e7cd04aedb79b978c4379c2b5b24d565dd5d67d3cb3c",
    ),
    (
        "an ECDSA identity",
        Some("QmZcrvr3r4S3QvwFdae3c2EWTfo792Y14UpzCZurhmiWeX"),
        "308201c030820166a003020102020900eaf419a6e3edb4a6300a06082a8648ce3d04030230003020170d3735303130313030303030305a\
         180f34303936303130313030303030305a30003059301306072a8648ce3d020106082a8648ce3d030107034200048dbf1116c7c608d6d5\
         292bd826c3feb53483a89fce434bf64538a359c8e07538ff71f6766239be6a146dcc1a5f3bb934bcd4ae2ae1d4da28ac68b4a20593f06b\
         a381c63081c33081c0060a2b0601040183a25a01010101ff0481ae3081ab045f0803125b3059301306072a8648ce3d020106082a8648ce\
         3d0301070342000484b93fa456a74bd0153919f036db7bc63c802f055bc7023395d0203de718ee0fc7b570b767cdd858aca6c7c4113ff0\
         02e78bd2138ac1a3b26dde3519e06979ad04483046022100bc84014cea5a41feabdf4c161096564b9ccf4b62fbef4fe1cd382c84e11101\
         780221009204f086a84cb8ed8a9ddd7868dc90c792ee434adf62c66f99a08a5eba11615b300a06082a8648ce3d04030203480030450220\
         54b437be9a2edf591312d68ff24bf91367ad4143f76cf80b5658f232ade820da022100e23b48de9df9c25d4c83ddddf75d2676f0b9318e\
         e2a6c88a736d85eab94a912f",
    ),
    (
        "a secp256k1 identity",
        Some("16Uiu2HAm2dSCBFxuge46aEt7U1oejtYuBUZXxASHqmcfVmk4gsbx"),
        "3082018230820128a003020102020900f3b305f55622cfdf300a06082a8648ce3d04030230003020170d3735303130313030303030305a\
         180f34303936303130313030303030305a30003059301306072a8648ce3d020106082a8648ce3d0301070342000458f7e9581748ff9bdd\
         933b655cc0e5552a1248f840658cc221dec2186b5a2fe4641b86ab7590a3422cdbb1000cf97662f27e5910d7569f22feed8829c8b52e0f\
         a38188308185308182060a2b0601040183a25a01010101ff0471306f042508021221026b053094d1112bce799dc8026040ae6d4eb57415\
         7929f1598172061f753d9b1b04463044022040712707e97794c478d93989aaa28ae1f71c03af524a8a4bd2d98424948a782302207b61b7\
         f074b696a25fb9e0059141a811cccc4cc28042d9301b9b2a4015e87470300a06082a8648ce3d04030203480030450220143ae4d86fdc86\
         75d2480bb6912eca5e39165df7f572d836aa2f2d6acfab13f8022100831d1979a98f0c4a6fb5069ca374de92f1a1205c962a6d90ad3d75\
         54cb7d9df4",
    ),
];

pub fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}
