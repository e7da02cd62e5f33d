/** The PowerShell face of the command line: one line of cmdlets in, text out. */

import { UnderstudyError } from '../../model/errors.ts';
import type { Cmdlet, CmdletContext } from './cmdlet.ts';
import { NETWORK_CMDLETS } from './network-cmdlets.ts';
import { bind, COMMON_PARAMETERS } from './parameters.ts';
import { findStage } from './pipeline.ts';
import type { Output } from './pipeline.ts';
import { render } from './render.ts';
import { REPLICATION_CMDLETS } from './replication-cmdlets.ts';
import { SERVER_CMDLETS } from './server-cmdlets.ts';
import { readStages, withPlainDashes } from './words.ts';
import type { Word } from './words.ts';

export type { CmdletContext } from './cmdlet.ts';
export { splitShellLine } from './words.ts';

export const CMDLETS: readonly Cmdlet[] = [...REPLICATION_CMDLETS, ...SERVER_CMDLETS, ...NETWORK_CMDLETS];

/** Whether these words (or this whole line, as one word) are for `runCmdlet`: Verb-VMSomething, Get-Help or Get-Command. */
export function isCmdlet(words: readonly string[]): boolean {
  const [name = ''] = withPlainDashes(words[0] ?? '')
    .trim()
    .split(/[\s|]/);
  return /^[a-z]+-vm\w+$|^get-(help|command)$/i.test(name);
}

/**
 * Runs one line and returns 0. `words` are a shell's arguments without the program's name; or one word that is a whole
 * line, as `understudy shell` reads it. What it puts out goes to `stdout` at the end. Rejects with UnderstudyError,
 * whose kind decides the exit code.
 */
export async function runCmdlet(words: readonly string[], context: CmdletContext): Promise<number> {
  const stages = readStages(words);
  let output: Output | null = null;
  for (const [name, ...rest] of stages) output = await runStage(name as Word, rest, output, context);
  if (output !== null) context.stdout.write(render(output, context.zone));
  return 0;
}

async function runStage(
  name: Word,
  words: readonly Word[],
  before: Output | null,
  context: CmdletContext,
): Promise<Output> {
  const stage = before === null ? undefined : findStage(name.text);
  if (stage !== undefined && before !== null) return stage(words, before, context.zone);
  const plainName = withPlainDashes(name.text);
  if (/^get-(help|command)$/i.test(plainName) && before === null) {
    context.stdout.write(help(words[0]?.text));
    return { rows: [], view: { kind: 'default' } };
  }
  const cmdlet = findCmdlet(plainName);
  const bound = bind(cmdlet.name, cmdlet.parameters, words, context);
  return { rows: await cmdlet.run(bound, context, before?.rows ?? null), view: { kind: 'default' } };
}

function findCmdlet(name: string): Cmdlet {
  const cmdlet = CMDLETS.find((each) => each.name.toLowerCase() === name.toLowerCase());
  if (cmdlet !== undefined) return cmdlet;
  const noun = name.slice(name.indexOf('-') + 1).toLowerCase();
  const near = CMDLETS.filter((each) => each.name.toLowerCase().endsWith(`-${noun}`)).map((each) => each.name);
  throw new UnderstudyError(
    'usage',
    'CMDLET_UNKNOWN',
    `there is no cmdlet '${name}'`,
    near.length > 0
      ? `There are: ${near.join(', ')}.`
      : 'Get-Command lists the cmdlets; where, select, fl and ft go behind a |.',
  );
}

function help(name: string | undefined): string {
  if (name === undefined) {
    const width = Math.max(...CMDLETS.map((cmdlet) => cmdlet.name.length));
    return CMDLETS.map((cmdlet) => `${cmdlet.name.padEnd(width)}  ${cmdlet.summary}\n`).join('');
  }
  const cmdlet = findCmdlet(withPlainDashes(name));
  const lines = [...cmdlet.parameters, ...COMMON_PARAMETERS]
    .filter(({ unsupported }) => unsupported === undefined)
    .map(({ name: parameter, type, aliases = [] }) => {
      const value = type === 'switch' ? '' : typeof type === 'string' ? ` <${type}>` : ` {${type.join(' | ')}}`;
      const also = aliases.length === 0 ? '' : `   (also ${aliases.map((alias) => `-${alias}`).join(', ')})`;
      return `  -${parameter}${value}${also}\n`;
    });
  return `${cmdlet.name}: ${cmdlet.summary}.\n${lines.join('')}`;
}
