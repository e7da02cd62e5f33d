/**
 * Instants at rest for the VMs of this host, and what is left to thaw of a server that was killed.
 *
 * Invariant: the record of a freeze names the agent that was asked, so that a setting that changes meanwhile leaves no guest frozen.
 */
import { ACTIVITY_EVENTS, makeEvent } from '../../model/events.ts';
import type { Clock, Logger } from '../../model/ports.ts';
import type { VmRecord } from '../../model/records.ts';
import type { Relationships } from '../../replication/relationships.ts';
import type { AgentChannel } from './agent-channel.ts';
import { cutAtRest, thawBehind, type AtRestParts, type Cut } from './at-rest.ts';

export interface GuestRestParts {
  relationships: Relationships;
  clock: Clock;
  log: Logger;
  /** The agent of a VM's guest; null when none is set. */
  agentOf(vm: VmRecord): ((timeoutMs: number) => Promise<AgentChannel>) | null;
}

export class GuestRest {
  #parts: GuestRestParts;
  #stop = new AbortController();

  constructor(parts: GuestRestParts) {
    this.#parts = parts;
  }

  /** Thaws what a server that was killed may have left frozen. */
  start(): void {
    for (const vm of this.#parts.relationships.catalog.vms.list()) {
      const asked = this.#parts.relationships.catalog.value(keyOf(vm.vmId)) ?? null;
      if (asked === null) continue;
      // `true`: of a server that did not write down whom it had asked.
      const then = asked === true ? vm : { ...vm, hypervisor: asked as NonNullable<VmRecord['hypervisor']> };
      const open = this.#parts.agentOf(then);
      if (open !== null) void thawBehind(this.#at(then, open));
    }
  }

  close(): void {
    this.#stop.abort(new Error('the server stops'));
  }

  /** As `cutAtRest`. */
  async cut<T>(vm: VmRecord, windowMs: number, cut: (atInstant: () => void) => Promise<T>): Promise<Cut<T>> {
    const open = this.#parts.agentOf(vm);
    if (open !== null) return cutAtRest(this.#at(vm, open), windowMs, cut);
    return { result: await cut(() => undefined), failure: 'no guest agent is set on this host (set NAME --guest-agent SOCKET)' };
  }

  #at({ vmId, name, hypervisor }: VmRecord, open: AtRestParts['open']): AtRestParts {
    const { relationships, clock, log } = this.#parts;
    return {
      clock, open, signal: this.#stop.signal,
      frozenOnRecord: (frozen) => {
        if (relationships.catalog.vms.get(vmId) !== undefined) relationships.catalog.setValue(keyOf(vmId), frozen ? (hypervisor ?? true) : null);
      },
      thawNews: ({ thawed, reason }) => {
        if (this.#stop.signal.aborted) return;
        log.warn({ vm: name, reason }, thawed ? 'the guest goes on' : 'the guest may be frozen');
        relationships.note(vmId, makeEvent(thawed ? ACTIVITY_EVENTS.guestThawed : ACTIVITY_EVENTS.guestMayBeFrozen, name, { reason }));
      },
    };
  }
}

const keyOf = (vmId: string): string => `frozen:${vmId}`;
