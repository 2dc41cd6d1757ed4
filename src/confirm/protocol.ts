/**
 * The protocol's name, on the stream and in what is proved
 */
export const CONFIRM_PROTOCOL = '/psec/confirm/1.0.0'
