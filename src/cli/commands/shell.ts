/** Commands and cmdlets, one a line. */

import { createInterface } from 'node:readline/promises';
import { UnderstudyError } from '../../model/errors.ts';
import { isCmdlet, splitShellLine } from '../cmdlets/run-cmdlet.ts';
import { define } from '../command.ts';
import type { CommandDefinition } from '../command.ts';
import type { CommandContext } from '../context.ts';
import { reportFailure } from '../failure.ts';

const PROMPT = 'understudy> ';

export const shellCommands: CommandDefinition[] = [
  define({
    path: 'shell',
    summary: 'Take commands and cmdlets, one a line.',
    details:
      'Lines are commands without `understudy` in front, or cmdlets, also with a | behind. `exit` ' +
      'ends it. A line that fails does not\n' +
      'end it; the exit code is that of the last line. Lines that begin with # are remarks.',
    examples: ['shell', "echo 'Get-VMReplication web1 | fl *' | understudy shell"],
    async run(context) {
      const { stdin, stdout, isTTY } = context.surroundings;
      const lines = createInterface({
        input: stdin,
        terminal: isTTY.stdin,
        prompt: PROMPT,
        ...(isTTY.stdin ? { output: stdout } : {}),
      });
      context.signal.addEventListener('abort', () => lines.close(), { once: true });
      lines.on('SIGINT', () => lines.close());
      let code = 0;
      if (isTTY.stdin) lines.prompt();
      for await (const line of lines) {
        if (/^(exit|quit)$/i.test(line.trim())) break;
        code = await runLine(line, code, context);
        if (isTTY.stdin) lines.prompt();
      }
      lines.close();
      return code;
    },
  }),
];

async function runLine(line: string, before: number, context: CommandContext): Promise<number> {
  const trimmed = line.trim();
  if (trimmed === '' || trimmed.startsWith('#')) return before;
  try {
    // A cmdlet's line stays whole: it has quotes and pipes of its own.
    const words = isCmdlet([trimmed]) ? [trimmed] : splitShellLine(trimmed);
    if (words[0] === 'shell')
      throw new UnderstudyError('usage', 'SHELL_IN_SHELL', 'this is the shell already', 'Leave the word out.');
    return await context.runWords([`--data=${context.dataFolder}`, ...words]);
  } catch (error) {
    return reportFailure(error, false, context.surroundings);
  }
}
