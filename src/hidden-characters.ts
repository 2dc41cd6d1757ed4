/**
 * Characters that a person does not see as what they are, as the inside of a regular expression's class: delete and the C1 controls
 * (U+009B begins an escape sequence in a terminal), and the marks that hide or reorder text. Internal.
 */
export const HIDDEN = '\\u007f-\\u009f\\u00ad\\u061c\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff'

/**
 * The same for the C0 controls, of which JSON leaves none. Internal.
 */
export const C0_CONTROLS = '\\u0000-\\u001f'
