/** Who may do what over HTTP, and for how long at most. */

/** A reader sees everything and changes nothing. */
export const ROLES = ['administrator', 'reader'] as const;
export type Role = (typeof ROLES)[number];

/** A sign-in link is used at once; a longer life would only help who finds it. */
export const SIGN_IN_MINUTES = 10;
/** A working day. */
export const SESSION_HOURS_DEFAULT = 12;
export const SESSION_HOURS_MAX = 7 * 24;
export const TOKEN_DAYS_DEFAULT = 365;
export const TOKEN_DAYS_MAX = 3650;
