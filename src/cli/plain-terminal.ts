/** Terminals whose locale is not UTF-8 would show our few typographic characters as several strange ones each. */
import { Writable } from 'node:stream';

const PLAIN: Record<string, string> = { '→': '->', '…': '...', '–': '-', '—': '-', '“': '"', '”': '"', '’': "'", '×': 'x' };
const TYPOGRAPHIC = new RegExp(`[${Object.keys(PLAIN).join('')}]`, 'g');

/** By the variables of the locale, as setlocale(3) reads them. A locale that nobody has set is C. */
export function speaksUtf8({ LC_ALL: all, LC_CTYPE: letters, LANG: other }: Readonly<Record<string, string | undefined>>): boolean {
  const locale = all || letters || other || 'C';
  return /utf-?8/i.test(locale);
}

export const inPlainLetters = (text: string): string => text.replaceAll(TYPOGRAPHIC, (letter) => PLAIN[letter]!);

/** Writes to `terminal` in plain letters. What people have named themselves stays as it is. */
export function plainTerminal(terminal: Writable): Writable {
  const plain = new Writable({
    decodeStrings: false,
    write: (chunk: string | Buffer, _encoding, done) => void terminal.write(typeof chunk === 'string' ? inPlainLetters(chunk) : chunk, done),
  });
  return Object.defineProperty(plain, 'columns', { get: () => (terminal as { columns?: number }).columns });
}
