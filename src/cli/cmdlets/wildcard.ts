/** PowerShell's wildcards: `*`, `?` and `[a-c]`, any case. */

export function isWildcard(pattern: string): boolean {
  return /[*?[]/.test(pattern);
}

/** Matches the whole text. A `[` without its `]` stands for itself. */
export function matches(pattern: string, text: string): boolean {
  const source = pattern.replace(/\[[^\]]+\]|[\s\S]/g, (piece) => {
    if (piece === '*') return '.*';
    if (piece === '?') return '.';
    if (piece.length > 1) return `[${piece.slice(1, -1).replace(/[\\^[\]]/g, '\\$&')}]`;
    return piece.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
  });
  try {
    return new RegExp(`^${source}$`, 'isu').test(text);
  } catch {
    // A range written backwards, as in [z-a]: nothing is inside it.
    return false;
  }
}
