/** Verify, failover and recovery points. */
import type { VmRecord } from '../../model/records.ts';
import type { Operation } from '../../model/relationship.ts';
import { verifyOnRecord } from '../verify-schedule.ts';
import type { CallContext, HostOperations, Params, Result, Status } from '../api/contract.ts';
import type { Host } from '../host.ts';
import { pointShapes } from '../point-shapes.ts';
import { sendingEnd, vmOfEnd } from '../sending-end.ts';
import { statusShape } from '../status.ts';
import { stopForPrepare, withGuestOff } from './guest-operations.ts';

type Operations = Pick<HostOperations, 'verify' | 'failover' | 'failover.cancel' | 'failover.complete' | 'reverse' | 'points'>;

export function failoverOperations(host: Host): Operations {
  const { relationships, failover, replicaDirection: direction } = host;
  const onReplica = async (name: string, operation: Operation, work: (vmId: string) => Promise<void>) => {
    const vm = host.vm(name);
    relationships.check(vm.vmId, operation);
    await work(vm.vmId);
    return statusShape(host, host.vm(name));
  };
  const started = async (vmId: string, test = false) => host.guestControl.start(vmId, { test });
  return {
    'verify': (params, context) => verifyVm(host, params, context),
    'failover': async ({ name, kind, point }, { signal }) => {
      if (kind === 'test') {
        return onReplica(name, 'test-failover', async (vmId) => {
          await failover.test(vmId, point);
          await started(vmId, true);
        });
      }
      if (kind === 'unplanned') {
        return onReplica(name, 'failover', async (vmId) => {
          await direction.unplanned(vmId, signal, () => failover.unplanned(vmId, point));
          await started(vmId);
        });
      }
      const vm = host.vm(name);
      if (kind === 'prepare') return prepare(host, vm, signal);
      await direction.planned(vm.vmId, signal);
      await started(vm.vmId);
      return statusShape(host, host.vm(name));
    },
    'failover.cancel': async ({ name }, { signal }) => {
      const { vmId, side } = host.vm(name);
      relationships.check(vmId, 'cancel-failover');
      if (side === 'primary') {
        await host.primaryDirection.cancel(vmId, signal);
        return statusShape(host, host.vm(name));
      }
      // A guest that would go on while its disks are thrown away: refused before anything has changed.
      if (failover.isServed(vmId)) await host.guestControl.powerOff(vmId);
      const droppedBytes = await direction.cancel(vmId);
      return { ...statusShape(host, host.vm(name)), droppedBytes };
    },
    'failover.complete': ({ name }) => onReplica(name, 'complete-failover', (vmId) => direction.complete(vmId)),
    'reverse': async ({ name, discardPrimary }, { signal }) => {
      const { vmId } = host.vm(name);
      relationships.check(vmId, 'reverse');
      await withGuestOff(host, vmId, () => direction.reverse(vmId, discardPrimary === true, signal));
      return statusShape(host, host.vm(name));
    },
    'points': async ({ name }) => pointShapes(host, host.vm(name)),
  };
}

/** The replica hears of it at once, so that the planned failover can follow without waiting for a cycle. */
async function prepare(host: Host, vm: VmRecord, signal: AbortSignal): Promise<Status> {
  host.relationships.check(vm.vmId, 'prepare-failover');
  await stopForPrepare(host, vm, signal);
  await host.primaryDirection.prepare(vm.vmId, signal);
  await host.primary(vm.vmId).report(signal).catch(() => undefined);
  return statusShape(host, host.vm(vm.name));
}

async function verifyVm(host: Host, { name, extended, repair }: Params<'verify'>, context: CallContext): Promise<Result<'verify'>> {
  const { relationships, sender } = sendingEnd(host, extended);
  const vm = vmOfEnd(host, { name, extended });
  const primary = sender(vm.vmId);
  const progress = (done: number, total: number) => context.progress({ phase: 'comparing', done, total, unit: 'bytes' });
  const result = await verifyOnRecord(host, name, { signal: context.signal, repair: repair === true, extended, progress });
  const { differingBytes } = result;
  const mends = repair === true && !result.equal;
  if (mends) {
    primary.require({ trigger: 8, reason: 'verify found a difference and was asked to repair it' });
    const { required } = relationships.get(vm.vmId);
    relationships.update(vm.vmId, { required: { ...required!, startAt: host.parts.clock.now() } });
    primary.wake();
    while (relationships.get(vm.vmId).state !== 'Replicating') await host.parts.clock.sleep(100, context.signal);
  }
  const { longestHoldMs, from, ...rest } = result;
  return { vmName: name, ...rest, at: new Date(result.at).toISOString(), from: new Date(from).toISOString(),
    longestHoldSeconds: longestHoldMs / 1000, repairedBytes: mends ? differingBytes : 0 };
}
