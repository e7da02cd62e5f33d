/**
 * The command line: words in, exit code out. Everything it touches is handed in, so that tests run it whole inside
 * their process.
 */

import type { Writable } from 'node:stream';
import { CommanderError } from 'commander';
import { UnderstudyError, errnoOf } from '../model/errors.ts';
import { tryCmdlet } from './cmdlet-bridge.ts';
import type { CliSurroundings, CommandContext } from './context.ts';
import { reportFailure } from './failure.ts';
import { plainTerminal, speaksUtf8 } from './plain-terminal.ts';
import { buildProgram } from './program.ts';

/** `argv` without node and script. Once per process: it goes on listening for readers that went away. */
export async function runCli(argv: readonly string[], surroundings: CliSurroundings): Promise<number> {
  const readerGone = new AbortController();
  // `understudy events --follow | head`: nobody reads any more. It may only be known after the last word was written.
  surroundings.stdout.on('error', (error) => readerGone.abort(error));
  surroundings.stderr.on('error', (error) => readerGone.abort(error));
  const signal = AbortSignal.any([surroundings.signal, readerGone.signal]);
  const { stdout, stderr, isTTY, env } = surroundings;
  const sink = (stream: Writable, terminal: boolean): Writable => (terminal && !speaksUtf8(env) ? plainTerminal(stream) : stream);
  const sinks = { stdout: sink(stdout, isTTY.stdout), stderr: sink(stderr, isTTY.stderr) };
  return runReporting(argv, { ...surroundings, ...sinks, signal }, surroundings.signal);
}

function isBrokenPipe({ aborted, reason }: AbortSignal): boolean {
  return aborted && errnoOf(reason) === 'EPIPE';
}

/** `interrupted` tells Ctrl-C from a reader that went away. */
async function runReporting(
  argv: readonly string[],
  surroundings: CliSurroundings,
  interrupted: AbortSignal,
): Promise<number> {
  const again = (words: readonly string[]): Promise<number> => runReporting(words, surroundings, interrupted);
  try {
    return await run(argv, surroundings, again);
  } catch (error) {
    if (isBrokenPipe(surroundings.signal) && !(error instanceof UnderstudyError)) return 0;
    return reportFailure(error, wantsJson(argv), { ...surroundings, signal: interrupted });
  }
}

async function run(
  argv: readonly string[],
  surroundings: CliSurroundings,
  runWords: CommandContext['runWords'],
): Promise<number> {
  const cmdlet = tryCmdlet(argv, surroundings);
  if (cmdlet !== null) return cmdlet;
  const { program, exitCode } = buildProgram(surroundings, wantsJson(argv), runWords);
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
