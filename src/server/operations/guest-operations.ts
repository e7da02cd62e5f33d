/** Guests, started and stopped through the adapter: alone, and as part of a failover. */
import { UnderstudyError } from '../../model/errors.ts';
import { changeHypervisor, hypervisorOf, type HypervisorChange } from '../../model/hypervisor.ts';
import { ACTIVITY_EVENTS, makeEvent } from '../../model/events.ts';
import type { VmRecord } from '../../model/records.ts';
import type { HostOperations } from '../api/contract.ts';
import type { Host } from '../host.ts';
import { statusShape } from '../status.ts';

type Operations = Pick<HostOperations, 'guest.start' | 'guest.stop'>;

export function guestOperations(host: Host): Operations {
  const withAdapter = (name: string): VmRecord => {
    const vm = host.vm(name);
    if (host.guestControl.hasAdapter(vm.vmId)) return vm;
    throw new UnderstudyError('state', 'NO_ADAPTER', `VM '${name}' has no adapter on host ${host.name}: a person starts and stops its guest`,
      `Set one: understudy set '${name}' --adapter command --adapter-command PATH, or --adapter libvirt`);
  };
  return {
    'guest.start': async ({ name, test }) => {
      const { vmId } = withAdapter(name);
      await host.guestControl.start(vmId, { test: test === true });
      return statusShape(host, host.vm(name));
    },
    'guest.stop': async ({ name, test, now }) => {
      const { vmId } = withAdapter(name);
      if (now === true || test === true) await host.guestControl.powerOff(vmId, { test: test === true });
      else await host.guestControl.stop(vmId);
      return statusShape(host, host.vm(name));
    },
  };
}

/** Of this host alone: on either side, replicated or not. */
export function setHypervisor(host: Host, { vmId, name }: VmRecord, change: HypervisorChange): void {
  const { catalog, relationships } = host;
  const before = relationships.vm(vmId);
  const hypervisor = changeHypervisor(hypervisorOf(before), change);
  catalog.transaction(() => catalog.vms.put({ ...before, hypervisor }));
  relationships.note(vmId, makeEvent(ACTIVITY_EVENTS.settingsChanged, name, { changes: { hypervisor: change } }));
  host.definitions.wake();
}

/** Before a planned failover: the guest goes off here, but only when the rest can follow. */
export async function stopForPrepare(host: Host, { vmId }: VmRecord, signal: AbortSignal): Promise<void> {
  if (!host.guestControl.hasAdapter(vmId)) return;
  // A replica that cannot be reached is found out while the guest still runs.
  await host.primary(vmId).report(signal);
  await host.definitions.tell(vmId, signal);
  await host.guestControl.stop(vmId);
}

/** The guest is off for the moment of `turn`; it runs again afterwards if it ran before, whether or not the direction has changed. */
export async function withGuestOff(host: Host, vmId: string, turn: () => Promise<void>): Promise<void> {
  const ran = host.guestControl.hasAdapter(vmId) && host.guests(vmId) > 0;
  if (!ran) return turn();
  await host.guestControl.stop(vmId);
  try {
    await turn();
  } catch (error) {
    // Whatever start has to say is on record; why there was no reversal is what the user asked.
    await host.guestControl.start(vmId).catch(() => undefined);
    throw error;
  }
  await host.guestControl.start(vmId);
}
