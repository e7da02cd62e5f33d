/** Who may do what with which VM. Pure. Trust groups follow Hyper-V Replica's authorisation entries. */
import { UnderstudyError } from '../model/errors.ts';
import type { PeerCaller } from './message.ts';

export interface PeerEntry {
  /** `AB:CD:…`, or `any`: every host whose certificate this host's certificate authority issued. */
  readonly fingerprint: string;
  readonly name: string | null;
  /** Folder that new replica disks of this peer go to. */
  readonly storageLocation: string;
  readonly trustGroup: string;
}

/** What is remembered of the peer that created a replica VM, whatever became of its entry. */
export interface VmOwner {
  readonly storageLocation: string;
  readonly trustGroup: string;
}

export type Decision =
  | { allowed: true; entry: PeerEntry; storageLocation: string; trustGroup: string }
  /** `reason` is for this host's log only. `refusal` goes to the peer. */
  | { allowed: false; reason: string; refusal: UnderstudyError };

/**
 * The entry that speaks for the caller: its own first, else `any`. `any` never covers a certificate nobody vouched for.
 */
export function entryFor(entries: Iterable<PeerEntry>, caller: PeerCaller): PeerEntry | null {
  let anybody: PeerEntry | null = null;
  for (const entry of entries) {
    if (entry.fingerprint === caller.fingerprint) return entry;
    if (entry.fingerprint === 'any' && caller.verifiedByCa === true) anybody ??= entry;
  }
  return anybody;
}

/** A relationship as far as it speaks for the host at its other end. */
export interface Partnership {
  readonly remote: { readonly fingerprint: string; readonly name: string };
  readonly pairedBy?: 'enable';
}

/** `enable` named this host, so it was paired by that: it may speak about VMs that it shares with us, and make none. */
export function isPartner(partnership: Partnership, caller: PeerCaller): boolean {
  return partnership.pairedBy === 'enable' && partnership.remote.fingerprint === caller.fingerprint;
}

/** Stands in for an entry where the caller has none: good for nothing but the VMs it shares with us. */
export function partnerEntry(partnerships: Iterable<Partnership>, caller: PeerCaller): PeerEntry | null {
  for (const partnership of partnerships) {
    if (!isPartner(partnership, caller)) continue;
    return { fingerprint: caller.fingerprint, name: partnership.remote.name || null, storageLocation: '', trustGroup: '' };
  }
  return null;
}

/** May the caller create a replica VM here? Entries decide where it goes and whom it trusts from then on. */
export function decideNewVm(entries: Iterable<PeerEntry>, caller: PeerCaller, vm: string): Decision {
  const entry = entryFor(entries, caller);
  if (entry === null) return refused(vm, `${caller.fingerprint} has no entry`);
  return { allowed: true, entry, storageLocation: entry.storageLocation, trustGroup: entry.trustGroup };
}

/**
 * May the caller touch this VM? Only peers of its creator's trust group may; the VM keeps its place when entries
 * change.
 * @param owner null when there is no such VM: the answer is the same as for a VM of another group, so that nobody can
 * probe
 */
export function decide(entries: Iterable<PeerEntry>, caller: PeerCaller, vm: string, owner: VmOwner | null): Decision {
  const entry = entryFor(entries, caller);
  if (entry === null) return refused(vm, `${caller.fingerprint} has no entry`);
  if (owner === null) return refused(vm, 'there is no such VM');
  if (entry.trustGroup !== owner.trustGroup) {
    return refused(vm, `${caller.fingerprint} is of trust group "${entry.trustGroup}", the VM of "${owner.trustGroup}"`);
  }
  return { allowed: true, entry, storageLocation: owner.storageLocation, trustGroup: owner.trustGroup };
}

/** The one answer for a VM that is not there and for one the peer may not know of. */
export function vmUnknownToPeer(vm: string): UnderstudyError {
  return new UnderstudyError('peer', 'PEER_VM_UNKNOWN', `the other host knows no VM ${vm} that this host may use`,
    'Check the name, and on the other host that this host is authorised in the trust group of the VM.');
}

function refused(vm: string, reason: string): Decision {
  return { allowed: false, reason, refusal: vmUnknownToPeer(vm) };
}
