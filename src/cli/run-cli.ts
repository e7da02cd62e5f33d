/**
 * The command line: words in, exit code out. Everything it touches is handed in, so that tests run it whole inside
 * their process.
 */

import { CommanderError } from 'commander';
import { errnoOf } from '../model/errors.ts';
import { tryCmdlet } from './cmdlet-bridge.ts';
import type { CliSurroundings } from './context.ts';
import { reportFailure } from './failure.ts';
import { buildProgram } from './program.ts';

/** `argv` without node and script. */
export async function runCli(argv: readonly string[], surroundings: CliSurroundings): Promise<number> {
  const readerGone = new AbortController();
  const signal = AbortSignal.any([surroundings.signal, readerGone.signal]);
  const onPipeError = (error: Error): void => readerGone.abort(error);
  surroundings.stdout.on('error', onPipeError);
  try {
    return await run(argv, { ...surroundings, signal });
  } catch (error) {
    // `understudy events --follow | head`: nobody reads any more, and that is no failure.
    if (readerGone.signal.aborted && errnoOf(readerGone.signal.reason) === 'EPIPE') return 0;
    return reportFailure(error, wantsJson(argv), surroundings);
  } finally {
    surroundings.stdout.off('error', onPipeError);
  }
}

async function run(argv: readonly string[], surroundings: CliSurroundings): Promise<number> {
  const cmdlet = tryCmdlet(argv, surroundings);
  if (cmdlet !== null) return cmdlet;
  const { program, exitCode } = buildProgram(surroundings, wantsJson(argv), (words) => runCli(words, surroundings));
  try {
    await program.parseAsync([...argv], { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    throw error;
  }
  return exitCode();
}

/** Known before parsing, since a failure to parse is reported as JSON too. */
function wantsJson(argv: readonly string[]): boolean {
  const end = argv.indexOf('--');
  return (end === -1 ? argv : argv.slice(0, end)).includes('--json');
}
