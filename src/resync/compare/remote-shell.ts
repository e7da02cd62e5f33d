/**
 * The other side of a compare as a program on another host, started through ssh or a command given in its place, as
 * rsync does.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { shellWord } from '../../disk/disk-errors.ts';
import { UnderstudyError } from '../../model/errors.ts';

export type DiskPlace = { kind: 'local'; location: string } | { kind: 'remote'; host: string; path: string };

/**
 * `[USER@]HOST:PATH` names a disk on another host when no slash comes before the colon; everything else, and every
 * URI, is for `openDisk`. IPv6 addresses stand in brackets.
 */
export function parsePlace(text: string): DiskPlace {
  const found = /^((?:[^/:@]+@)?(?:\[[^\]/]+\]|[^/:[\]]+)):(.*)$/s.exec(text);
  if (found === null || /^[a-z][a-z0-9+.-]*:\/\//i.test(text)) return { kind: 'local', location: text };
  const [host, path] = [found[1]!.replace(/[[\]]/g, ''), found[2]!];
  // A host that begins with a dash would be read as an option by ssh, and could name a command to run.
  if (host.startsWith('-') || path === '') {
    throw new UnderstudyError(
      'usage',
      'DISK_PLACE_INVALID',
      `${text} names no disk on another host`,
      'Write [USER@]HOST:PATH.',
    );
  }
  return { kind: 'remote', host, path };
}

export interface RemoteOptions {
  /** Default `ssh`; words are split at spaces. */
  rsh?: string;
  /** How the program is called over there; default `understudy`. */
  remoteCommand?: string;
  /** A diff disk over the disk there. */
  diff?: string;
}

/** The words of the process to start: the last ones go through the other host's shell. */
export function remoteCommandLine(
  host: string,
  path: string,
  { rsh = 'ssh', remoteCommand = 'understudy', diff }: RemoteOptions,
): string[] {
  const words = (text: string) => text.split(/\s+/).filter((word) => word !== '');
  const safe = (name: string) => shellWord(name.startsWith('-') ? `./${name}` : name);
  const over = diff === undefined ? [] : ['--diff', safe(diff)];
  return [...words(rsh), host, ...words(remoteCommand), 'disk', 'serve', '--stdio', ...over, safe(path)];
}

const NOTE_CHARS_MAX = 2000;

export class RemoteShell {
  readonly #child: ChildProcess;
  readonly #line: string;
  readonly #exit: Promise<string>;
  #notes = '';

  constructor(host: string, path: string, options: RemoteOptions) {
    const [program, ...words] = remoteCommandLine(host, path, options);
    this.#line = [program, ...words].join(' ');
    this.#child = spawn(program!, words, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#notes = (this.#notes + text).slice(-NOTE_CHARS_MAX);
    });
    this.#exit = new Promise((resolve) => {
      this.#child.on('error', (error) => resolve(error.message));
      // Not 'close': a shell that stays in the background for later connections keeps standard error open.
      this.#child.on('exit', (status, signal) =>
        resolve(status === 0 ? '' : signal === null ? `status ${status}` : `signal ${signal}`),
      );
    });
    this.#child.stdin!.on('error', () => {}); // Also seen by the channel, which says that the link was lost.
  }

  get stdout(): Readable {
    return this.#child.stdout!;
  }

  get stdin(): Writable {
    return this.#child.stdin!;
  }

  /**
   * Ends the program; after a failure that only says "link lost", its exit and last words are the better explanation.
   */
  async end(failure: unknown): Promise<unknown> {
    this.#child.stdin!.end();
    if (failure !== null) this.#child.kill();
    const outcome = await this.#exit;
    const lost = failure instanceof UnderstudyError && failure.code === 'COMPARE_LINK_LOST';
    const stopped = outcome === '' || outcome === 'signal SIGTERM';
    if (!lost || (stopped && this.#notes === '')) return failure;
    return new UnderstudyError(
      'peer',
      'REMOTE_SHELL_FAILED',
      [
        `${this.#line} ended early`,
        stopped ? '' : ` with ${outcome}`,
        this.#notes === '' ? '' : `: ${this.#notes.trim()}`,
      ].join(''),
      'Check that this command works by itself and that Understudy is installed there; --rsh names another shell.',
      { cause: failure },
    );
  }
}
