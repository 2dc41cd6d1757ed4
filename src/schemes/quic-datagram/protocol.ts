/**
 * The scheme's name on the wire
 */
export const QUIC_DATAGRAM = '/quic-datagram/1.0.0'
