/** What the command line is given by its surroundings, and what every command is given by the command line. */

import { resolve } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import type { Clock, Files } from '../model/ports.ts';
import { parseStartTime, parseTime } from '../model/schedule.ts';
import type { OperationName, Params, Progress, Result } from '../server/api/contract.ts';
import { callHost } from './client.ts';
import type { Output } from './output.ts';
import { ProgressView } from './progress.ts';

export interface TextSink {
  write(text: string): unknown;
}

export interface ServeOptions {
  dataFolder: string;
  /** Where peers are heard; port 0 = any free port. */
  peer: { host: string; port: number };
  /** Where the console, `/healthz` and `/metrics` are served; with `tls` behind that certificate. */
  http: { host: string; port: number; tls: { certPath: string; keyPath: string } | null };
  /** This host's name towards its peers; null = the machine's. */
  name: string | null;
  /** Where disks are served over TCP too; `clients` are fingerprints of certificates, none means plain NBD. */
  nbd?: { host: string; port: number; clients: string[] };
}

export interface RunningServer {
  /** HOST:PORT, with the real port. */
  readonly peerAddress: string;
  readonly httpAddress: string;
  readonly socketPath: string;
  /** HOST:PORT; null or absent when NBD is served on the Unix socket alone. */
  readonly nbdAddress?: string | null;
  /** Settles when the server has ended by itself; rejects with the reason. */
  readonly ended: Promise<void>;
  /** Seals the disks and ends. */
  close(): Promise<void>;
}

export interface CliSurroundings {
  stdin: Readable;
  stdout: Writable;
  stderr: Writable;
  env: Readonly<Record<string, string | undefined>>;
  /** Whether a person watches each stream. */
  isTTY: { stdin: boolean; stdout: boolean; stderr: boolean };
  /** Working folder: relative paths of people are relative to it. */
  cwd: string;
  /** IANA name; times that people give are local to it. */
  zone: string;
  clock: Clock;
  files: Files;
  version: string;
  /** Aborted by Ctrl-C (SIGINT) and SIGTERM. */
  signal: AbortSignal;
  makeServer(options: ServeOptions): Promise<RunningServer>;
}

export const DATA_FOLDER_DEFAULT = '/var/lib/understudy';

/** One run of one command. Its functions need no `this`: commands take those that they use. */
export interface CommandContext {
  surroundings: CliSurroundings;
  output: Output;
  dataFolder: string;
  zone: string;
  signal: AbortSignal;
  /** Calls the host's server, and shows progress while it runs. */
  call<N extends OperationName>(name: N, params: Params<N>, onItem?: (item: unknown) => void): Promise<Result<N>>;
  withProgress<Value>(work: (view: ProgressView) => Promise<Value>): Promise<Value>;
  /** Absolute: the server has another working folder than the person at the terminal. */
  path(given: string): string;
  /** A path made absolute, or an NBD URI as it is. */
  diskLocation(given: string): string;
  /**
   * ISO 8601 UTC of a start time in any form that people use; refuses the past and more than 7 days ahead (usage).
   */
  startTime(given: string): string;
  /** The same for a time that may lie anywhere. */
  anyTime(given: string): string;
  /** Runs another command line in the same surroundings; the exit code. */
  runWords(words: readonly string[]): Promise<number>;
}

interface ContextOptions {
  /** As given with --data. */
  dataFolder: string | undefined;
  runWords?: CommandContext['runWords'];
}

export function commandContext(
  surroundings: CliSurroundings,
  output: Output,
  options: ContextOptions,
): CommandContext {
  const { cwd, env, zone, clock, signal, stderr, isTTY } = surroundings;
  const path = (given: string): string => resolve(cwd, given);
  const dataFolder = path(options.dataFolder ?? (env['UNDERSTUDY_DATA'] || DATA_FOLDER_DEFAULT));
  const withProgress: CommandContext['withProgress'] = async (work) => {
    const view = new ProgressView({ stderr, terminal: isTTY.stderr, clock, columns: () => (stderr as { columns?: number }).columns });
    try {
      return await work(view);
    } finally {
      view.done();
    }
  };
  return {
    surroundings,
    output,
    dataFolder,
    zone,
    signal,
    withProgress,
    path,
    call: (name, params, onItem) =>
      withProgress((view) => {
        const onProgress = (progress: Progress): void => view.update(progress);
        return callHost(dataFolder, name, params, {
          signal,
          onProgress,
          ...(onItem === undefined ? {} : { onItem }),
        });
      }),
    diskLocation: (given) => (/^nbds?(\+unix|\+vsock)?:\/\//.test(given) ? given : path(given)),
    startTime: (given) => new Date(parseStartTime(given, clock.now(), zone)).toISOString(),
    anyTime: (given) => new Date(parseTime(given, clock.now(), zone)).toISOString(),
    runWords: options.runWords ?? (() => Promise.reject(new Error('this command runs no others'))),
  };
}
