/**
 * What starts and stops guests: one interface, whatever the hypervisor. adapters.suite.ts is what each implementation must do.
 *
 * Every action has a time limit, may be repeated, and is success when what it asks for is so already.
 */
import type { AdapterKind } from '../../model/hypervisor.ts';
import type { Side } from '../../model/replication-state.ts';

export interface GuestDisk {
  diskId: string;
  /** Where it is served. */
  uri: string;
  bytes: number;
  logicalSectorSize: number;
}

/** One guest: of a VM, or of its test failover. */
export interface Guest {
  vmId: string;
  vmName: string;
  /** As the hypervisor is told it: the VM's name, or `NAME - Test`. */
  name: string;
  test: boolean;
  /** Of this host, for the VM. */
  role: Side;
  hostName: string;
  /** The instant that is served, ISO 8601; null: the present. */
  time: string | null;
  disks: GuestDisk[];
}

export interface HypervisorAdapter {
  readonly kind: AdapterKind;
  /** Makes the guest known to the hypervisor where need be, on these disks, and starts it. Resolves with what a person may want to read. */
  start(guest: Guest, signal: AbortSignal): Promise<string>;
  /** Shuts the guest down and resolves when it is off; rejects when it is not off in time. */
  stop(guest: Guest, signal: AbortSignal): Promise<string>;
  /** Off at once; what `start` made known on a replica is forgotten. */
  powerOff(guest: Guest, signal: AbortSignal): Promise<string>;
}

/** What a program had said when it failed: the cause of the error that tells of it. */
export class AdapterOutput extends Error {
  readonly output: string;

  constructor(output: string) {
    super('what the program said');
    this.output = output;
  }
}
