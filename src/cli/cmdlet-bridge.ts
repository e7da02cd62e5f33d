/** Where Hyper-V's cmdlets come in: `understudy Get-VMReplication …`, and lines of `understudy shell`. */

import { UnderstudyError } from '../model/errors.ts';
import { isCmdlet, runCmdlet } from './cmdlets/run-cmdlet.ts';
import { commandContext } from './context.ts';
import type { CliSurroundings } from './context.ts';
import { withPage } from './failure.ts';
import { Output } from './output.ts';

/** Our own options may stand anywhere among a cmdlet's words: its parameters begin with one dash. */
export interface SplitWords {
  words: readonly string[];
  dataFolder: string | undefined;
}

export function splitOwnOptions(argv: readonly string[]): SplitWords {
  const words: string[] = [];
  let dataFolder: string | undefined;
  for (let at = 0; at < argv.length; at += 1) {
    const word = argv[at]!;
    if (word === '--data') {
      at += 1;
      dataFolder = argv[at];
      if (dataFolder === undefined)
        throw new UnderstudyError('usage', 'OPTION_MISSING_ARGUMENT', '--data has no folder', 'Give --data DIR.');
    } else if (word.startsWith('--data=')) dataFolder = word.slice('--data='.length);
    else if (word !== '--json') words.push(word);
  }
  return { words, dataFolder };
}

/**
 * The exit code, or null when these are not the words of a cmdlet. Cmdlets put out text; `--json` shapes their
 * errors only.
 */
export function tryCmdlet(argv: readonly string[], surroundings: CliSurroundings): Promise<number> | null {
  if (!argv.some((word) => isCmdlet([word]))) return null;
  const { words, dataFolder } = splitOwnOptions(argv);
  if (!isCmdlet(words)) return null;
  const { stdout, stderr, clock, zone } = surroundings;
  const output = new Output({ stdout, stderr, json: false, color: false });
  const { call, path } = commandContext(surroundings, output, { dataFolder });
  return runCmdlet(words, { call: (name, params) => call(name, params), stdout, now: clock.now(), zone, path })
    .catch((error: unknown) => { throw withPage(error, `Get-Help ${words[0]!.trim().split(/[\s|]/)[0]}`); });
}
