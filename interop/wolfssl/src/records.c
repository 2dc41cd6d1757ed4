/* The little of wolfSSL that ../src/main.rs needs, as functions without macros and structures */
#include <string.h>
#include "wolfssl/wolfcrypt/settings.h"
#include "wolfssl/ssl.h"
#include "wolfssl/error-ssl.h"
#include "wolfssl/version.h"

typedef int (*psec_receive)(void *io, char *buffer, int size);
typedef int (*psec_send)(void *io, const char *buffer, int size);

struct psec_io {
  void *io;
  psec_receive receive;
  psec_send send;
};

/* The certificate that the remote has shown; that it has the key is checked by wolfSSL, whom it names by who asks for it. */
static unsigned char peer_certificate[16384];
static int peer_certificate_length;
static int peer_certificates;

static int receive_datagram(WOLFSSL *ssl, char *buffer, int size, void *ctx) {
  struct psec_io *io = ctx;
  int length = io->receive(io->io, buffer, size);

  return length < 0 ? WOLFSSL_CBIO_ERR_WANT_READ : length;
}

static int send_datagram(WOLFSSL *ssl, char *buffer, int size, void *ctx) {
  struct psec_io *io = ctx;

  return io->send(io->io, buffer, size);
}

/* A libp2p certificate is signed by itself: no authority is known, any other error counts. */
static int verify(int ok, WOLFSSL_X509_STORE_CTX *store) {
  peer_certificates = store->totalCerts;

  if (store->totalCerts != 1 || store->certs[0].length > sizeof(peer_certificate)) {
    return 0;
  }

  memcpy(peer_certificate, store->certs[0].buffer, store->certs[0].length);
  peer_certificate_length = store->certs[0].length;

  return ok || store->error == ASN_NO_SIGNER_E || store->error == ASN_SELF_SIGNED_E;
}

const char *psec_version(void) { return LIBWOLFSSL_VERSION_STRING; }

WOLFSSL *psec_new(int server, const char *certificate, const char *key, const char *groups, int cookie, int mtu, struct psec_io *io) {
  static const struct { const char *name; int id; } names[] = {
    { "X25519", WOLFSSL_ECC_X25519 },
    { "P-256", WOLFSSL_ECC_SECP256R1 },
    { "P-384", WOLFSSL_ECC_SECP384R1 },
    { "X25519MLKEM768", WOLFSSL_X25519MLKEM768 }
  };
  int ids[8];
  int count = 0;
  WOLFSSL_CTX *ctx;
  WOLFSSL *ssl;

  wolfSSL_Init();
  ctx = wolfSSL_CTX_new(server ? wolfDTLSv1_3_server_method() : wolfDTLSv1_3_client_method());

  if (ctx == NULL ||
      wolfSSL_CTX_use_certificate_file(ctx, certificate, WOLFSSL_FILETYPE_PEM) != WOLFSSL_SUCCESS ||
      wolfSSL_CTX_use_PrivateKey_file(ctx, key, WOLFSSL_FILETYPE_PEM) != WOLFSSL_SUCCESS) {
    return NULL;
  }

  wolfSSL_CTX_set_verify(ctx, WOLFSSL_VERIFY_PEER | WOLFSSL_VERIFY_FAIL_IF_NO_PEER_CERT, verify);
  wolfSSL_CTX_SetIORecv(ctx, receive_datagram);
  wolfSSL_CTX_SetIOSend(ctx, send_datagram);

  for (const char *name = groups; *name != 0; name += *name == ',') {
    size_t length = strcspn(name, ",");

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
      if (count < 8 && strlen(names[i].name) == length && strncmp(names[i].name, name, length) == 0) {
        ids[count++] = names[i].id;
      }
    }

    name += length;
  }

  if ((groups[0] != 0 && count == 0) || (count > 0 && wolfSSL_CTX_set_groups(ctx, ids, count) != WOLFSSL_SUCCESS)) {
    return NULL;
  }

  ssl = wolfSSL_new(ctx);

  if (ssl == NULL) {
    return NULL;
  }

  wolfSSL_SetIOReadCtx(ssl, io);
  wolfSSL_SetIOWriteCtx(ssl, io);
  wolfSSL_dtls_set_using_nonblock(ssl, 1);
  wolfSSL_dtls_set_mtu(ssl, mtu);

  /* The first is the one that a key share is sent of. */
  if (count > 0 && !server) {
    wolfSSL_UseKeyShare(ssl, ids[0]);
  }

  if (server) {
    if (cookie) {
      wolfSSL_send_hrr_cookie(ssl, NULL, 0);
    } else {
      wolfSSL_disable_hrr_cookie(ssl);
    }
    wolfSSL_dtls13_allow_ch_frag(ssl, 1);
  }

  return ssl;
}

/* 1: secured, 0: not yet, below 0: wolfSSL's error */
int psec_negotiate(WOLFSSL *ssl) {
  int result = wolfSSL_negotiate(ssl);
  int error;

  if (result == WOLFSSL_SUCCESS) {
    return 1;
  }

  error = wolfSSL_get_error(ssl, result);

  return error == WOLFSSL_ERROR_WANT_READ || error == WOLFSSL_ERROR_WANT_WRITE ? 0 : (error < 0 ? error : -error);
}

/* The length of a record, 0: none now, -1: the remote has closed, below: wolfSSL's error */
int psec_read(WOLFSSL *ssl, unsigned char *buffer, int size) {
  int length = wolfSSL_read(ssl, buffer, size);
  int error;

  if (length > 0) {
    return length;
  }

  error = wolfSSL_get_error(ssl, length);

  if (error == WOLFSSL_ERROR_WANT_READ || error == WOLFSSL_ERROR_WANT_WRITE) {
    return 0;
  }

  return error == WOLFSSL_ERROR_ZERO_RETURN ? -1 : (error < -1 ? error : -2);
}

int psec_write(WOLFSSL *ssl, const unsigned char *record, int length) {
  int written = wolfSSL_write(ssl, record, length);

  return written > 0 ? written : wolfSSL_get_error(ssl, written);
}

void psec_shutdown(WOLFSSL *ssl) { wolfSSL_shutdown(ssl); }

int psec_timeout(WOLFSSL *ssl) { return wolfSSL_dtls_get_current_timeout(ssl); }

int psec_quick_timeout(WOLFSSL *ssl) { return wolfSSL_dtls13_use_quick_timeout(ssl); }

int psec_on_timeout(WOLFSSL *ssl) { return wolfSSL_dtls_got_timeout(ssl); }

const char *psec_protocol(WOLFSSL *ssl) { return wolfSSL_get_version(ssl); }

const char *psec_cipher(WOLFSSL *ssl) { return wolfSSL_get_cipher_name(ssl); }

const char *psec_group(WOLFSSL *ssl) { return wolfSSL_get_curve_name(ssl); }

const char *psec_error(int error, char *buffer) { return wolfSSL_ERR_error_string((unsigned long) error, buffer); }

int psec_peer_certificate(const unsigned char **certificate) {
  *certificate = peer_certificate;

  return peer_certificates == 1 ? peer_certificate_length : 0;
}
