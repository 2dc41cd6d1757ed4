/**
 * The scheme's name on the wire
 */
export const DTLS = '/dtls/1.0.0'
