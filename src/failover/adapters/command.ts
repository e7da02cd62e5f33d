/**
 * The adapter `command`: a program of the user's, called with one word, everything else in its environment. Contract and a worked
 * example: docs/operating/adapters.md.
 *
 * The environment is made here from nothing: what the server's own holds is none of the program's business.
 */
import { errnoOf, UnderstudyError } from '../../model/errors.ts';
import { parseNbdUri } from '../../model/hypervisor-lines.ts';
import type { GuestAction, HypervisorSettings } from '../../model/hypervisor.ts';
import type { ProgramResult, Programs } from '../../model/ports.ts';
import { AdapterOutput, type Guest, type HypervisorAdapter } from './adapter.ts';

/** Where programs are looked for, whatever the server was started with. */
export const PROGRAM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
/** Of the last line, in a message. */
const LINE_CHARS_MAX = 300;

export function commandAdapter(programs: Programs, { command, timeoutSec }: Pick<HypervisorSettings, 'command' | 'timeoutSec'>): HypervisorAdapter {
  const path = command!;
  const act = async (action: GuestAction, guest: Guest, signal: AbortSignal): Promise<string> => {
    const env = environmentOf(action, guest, timeoutSec);
    const result = await startedAs(path, () => programs.run(path, [action], { env, timeoutMs: timeoutSec * 1000, signal }));
    refuseFailure(result, { what: `${path} ${action}`, guest: guest.name, timeoutSec });
    return result.output;
  };
  return {
    kind: 'command',
    start: (guest, signal) => act(guest.test ? 'start-test' : 'start', guest, signal),
    stop: (guest, signal) => act('stop', guest, signal),
    powerOff: (guest, signal) => act(guest.test ? 'stop-test' : 'power-off', guest, signal),
  };
}

function environmentOf(action: GuestAction, guest: Guest, timeoutSec: number): Record<string, string> {
  const env: Record<string, string> = {
    PATH: PROGRAM_PATH, LC_ALL: 'C.UTF-8',
    UNDERSTUDY_ACTION: action,
    UNDERSTUDY_VM_ID: guest.vmId,
    UNDERSTUDY_VM_NAME: guest.vmName,
    UNDERSTUDY_GUEST_NAME: guest.name,
    UNDERSTUDY_TEST: guest.test ? '1' : '0',
    UNDERSTUDY_ROLE: guest.role,
    UNDERSTUDY_HOST: guest.hostName,
    UNDERSTUDY_TIME: guest.time ?? '',
    UNDERSTUDY_TIMEOUT_SEC: String(timeoutSec),
    UNDERSTUDY_DISKS: String(guest.disks.length),
  };
  for (const [index, { uri, bytes, logicalSectorSize }] of guest.disks.entries()) {
    env[`UNDERSTUDY_DISK_${index}_URI`] = uri;
    env[`UNDERSTUDY_DISK_${index}_BYTES`] = String(bytes);
    env[`UNDERSTUDY_DISK_${index}_SECTOR_BYTES`] = String(logicalSectorSize);
    const { socket = null, exportName = '' } = parseNbdUri(uri) ?? {};
    env[`UNDERSTUDY_DISK_${index}_SOCKET`] = socket ?? '';
    env[`UNDERSTUDY_DISK_${index}_EXPORT`] = exportName;
  }
  return env;
}

/** A program that cannot even be started, in words. */
export async function startedAs<T>(path: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === undefined) throw error;
    throw new UnderstudyError('io', 'ADAPTER_UNUSABLE', `the program ${path} cannot be started: ${errno}`,
      'See that it is there, executable by the user that the server runs as, and begins with a #! line if it is a script.', { cause: error });
  }
}

/** @throws ADAPTER_TIMED_OUT, ADAPTER_FAILED: with the last line that the program said */
export function refuseFailure(result: ProgramResult, { what, guest, timeoutSec }: { what: string; guest: string; timeoutSec: number }): void {
  if (!result.timedOut && result.exitCode === 0) return;
  const cause = new AdapterOutput(result.output);
  const said = lastLine(result.output);
  const last = said === '' ? 'it said nothing' : `its last words: ${said}`;
  if (result.timedOut) {
    throw new UnderstudyError('io', 'ADAPTER_TIMED_OUT',
      `${what} for guest '${guest}' had not ended after ${timeoutSec} s and was killed; ${last}`,
      'See why it hangs, or give it more time: understudy set NAME --adapter-timeout SECONDS.', { cause });
  }
  const ended = result.exitCode === null ? 'was killed' : `ended with exit code ${result.exitCode}`;
  throw new UnderstudyError('io', 'ADAPTER_FAILED', `${what} for guest '${guest}' ${ended}; ${last}`,
    'Mend what it complains about; understudy vm show NAME has the end of all that it said.', { cause });
}

function lastLine(output: string): string {
  const line = output.split('\n').findLast((text) => text.trim() !== '') ?? '';
  // Terminal escapes of a foreign program must not reach a person's terminal.
  return line.replace(/\p{Cc}+/gu, ' ').trim().slice(0, LINE_CHARS_MAX);
}
