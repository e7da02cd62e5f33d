/**
 * From what a shell or a person hands over to words, with the typographic dashes and quotes that web pages and word
 * processors make of plain ones. Two sources: a whole line (its own quotes), or arguments that a shell has already
 * split and unquoted. There a typographic quote still stands and its words are joined again.
 */

import { UnderstudyError } from '../../model/errors.ts';

/**
 * `parts`: the elements when the word is read as an array; quoted commas do not split. `quoted`: never a parameter or
 * an operator.
 */
export type Word = { text: string; parts: string[]; quoted: boolean };

/** Hyphen, non-breaking hyphen, figure dash, en dash, em dash, horizontal bar, minus. */
const DASHES = '\u2010\u2011\u2012\u2013\u2014\u2015\u2212';
const TYPOGRAPHIC = ['\u201c\u201d\u201e\u201f', '\u2018\u2019\u201a\u201b'] as const; // double, single: as PowerShell takes them
const ASCII = ['"', "'"] as const;
/** Between arguments; no argument of a process can hold it. */
const BETWEEN_ARGUMENTS = '\0';

/** `cmdlets`: a `|` is a word of its own, and `a, b` is one array. */
type Rules = { separates: RegExp; families: readonly string[]; cmdlets: boolean; escape: string };
/** The braces of a script block matter to nobody here. */
const LINE: Rules = {
  separates: /[\s{}]/,
  families: [TYPOGRAPHIC[0] + ASCII[0], TYPOGRAPHIC[1] + ASCII[1]],
  cmdlets: true,
  escape: '`',
};
const ARGUMENTS: Rules = { separates: /\0/, families: TYPOGRAPHIC, cmdlets: true, escape: '' };

/** Plain hyphens for every dash of a cmdlet's or parameter's name. */
export function withPlainDashes(text: string): string {
  return text.replace(new RegExp(`[${DASHES}]`, 'g'), '-');
}

/**
 * The stages of a pipeline, each a list of words. An argument that holds a `|`, or a first one that holds blanks, is a
 * line (or part of one). Throws UnderstudyError usage QUOTE_OPEN or PIPELINE_EMPTY.
 */
export function readStages(words: readonly string[]): Word[][] {
  const stages: Word[][] = [[]];
  let plain: string[] = [];
  const add = (found: readonly (Word | '|')[]): void => {
    for (const word of found) {
      if (word === '|') stages.push([]);
      else stages.at(-1)?.push(word);
    }
  };
  const flush = (): void => {
    if (plain.length > 0) add(scan(plain.join(BETWEEN_ARGUMENTS), ARGUMENTS));
    plain = [];
  };
  words.forEach((word, index) => {
    if (!word.includes('|') && !(index === 0 && /\s/.test(word.trim()))) {
      plain.push(word);
      return;
    }
    flush();
    add(scan(word, LINE));
  });
  flush();
  if (stages.some((stage) => stage.length === 0)) {
    throw new UnderstudyError(
      'usage',
      'PIPELINE_EMPTY',
      'there is nothing before or after a |',
      'Write for example: Get-VMReplication | fl *',
    );
  }
  return stages;
}

/** The words of a line of `understudy shell`, quotes removed; for lines that are ordinary commands. Throws usage QUOTE_OPEN. */
export function splitShellLine(line: string): string[] {
  return scan(line, { ...LINE, separates: /\s/, cmdlets: false }).map((word) => (word === '|' ? '|' : word.text));
}

function scan(text: string, rules: Rules): (Word | '|')[] {
  const found: (Word | '|')[] = [];
  let word: Word | null = null;
  let opened: string | null = null; // the family of the quote that is open
  const put = (character: string): void => {
    word ??= { text: '', parts: [''], quoted: false };
    word.text += character;
    word.parts[word.parts.length - 1] += character;
  };
  const end = (): void => {
    if (word === null || (rules.cmdlets && word.parts.length > 1 && word.parts.at(-1) === '')) return;
    found.push(word);
    word = null;
  };
  for (let at = 0; at < text.length; at++) {
    const character = text[at] ?? '';
    const family = rules.families.find((quotes) => quotes.includes(character));
    if (opened !== null) {
      if (!opened.includes(character)) put(character === BETWEEN_ARGUMENTS ? ' ' : character);
      else if (text[at + 1] === character)
        put(text[++at] ?? ''); // doubled: itself
      else opened = null;
    } else if (family !== undefined && mayOpen(word)) {
      word ??= { text: '', parts: [''], quoted: true };
      opened = family;
    } else if (rules.escape !== '' && character === rules.escape && at + 1 < text.length) put(text[++at] ?? '');
    else if (rules.cmdlets && character === '|') {
      end();
      found.push('|');
    } else if (rules.separates.test(character)) end();
    else if (character === ',' && word !== null) {
      (word as Word).text += character;
      (word as Word).parts.push('');
    } else put(character);
  }
  if (opened !== null) {
    throw new UnderstudyError(
      'usage',
      'QUOTE_OPEN',
      `the quote before '${(word as Word | null)?.text ?? ''}' is not closed`,
      'Close it with the same kind of quote.',
    );
  }
  if (word !== null) found.push(word);
  return found;
}

/** A quote opens at the start of a value; elsewhere it is an apostrophe (`Bob’s`). */
function mayOpen(word: Word | null): boolean {
  return word === null || /[,:=({]$/.test(word.text) || (word.text === '' && word.quoted);
}
