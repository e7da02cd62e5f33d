/** Says what happens, in plain lines that read the same on a terminal, in a pipe and in a CI log. */
const bold = process.stdout.isTTY && process.env.NO_COLOR === undefined ? ['\x1b[1m', '\x1b[0m'] : ['', ''];
const began = performance.now();
let number = 0;

export const seconds = (): number => (performance.now() - began) / 1000;

/** The head of a part of the story. */
export function step(title: string): void {
  number++;
  console.log(`\n${bold[0]}${number}. ${title}${bold[1]}`);
}

/** What is going on. */
export const say = (text: string): void => console.log(`   ${text}`);
/** A command of ours, as a person would type it. */
export const command = (words: string[]): void => say(`$ understudy ${words.join(' ')}`);
/** Something that was checked and holds. */
export const proven = (text: string): void => say(`✔ ${text}`);

export const mebibytes = (bytes: number): string => `${(bytes / (1 << 20)).toFixed(1)} MiB`;
