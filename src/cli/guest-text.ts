/** How the adapter did, for people and for the exit code. */
import { EXIT_CODE } from '../model/errors.ts';
import type { Status } from '../server/api/contract.ts';
import type { CommandContext } from './context.ts';

type GuestFailure = { kind: 'io'; code: string; message: string; remedy: string };

/** Why there is no guest where its disks are served; null when nothing is wrong with it. */
export function guestFailure({ hypervisor }: Status, test = false): GuestFailure | null {
  const run = (test ? hypervisor?.testGuest : hypervisor?.guest) ?? null;
  const failure = run !== null && run.action.startsWith('start') ? run.failure : null;
  return failure === null ? null : { kind: 'io', code: failure.code, message: failure.message, remedy: failure.remedy };
}

/** Says on stderr that the guest was not started; returns the exit code. */
export function reportGuest({ surroundings }: CommandContext, status: Status, test = false): number {
  const failure = guestFailure(status, test);
  if (failure === null) return 0;
  surroundings.stderr.write(`understudy: ${failure.code}: ${failure.message}\n→ ${failure.remedy}\n`);
  return EXIT_CODE[failure.kind];
}
