/** Verify, failover and recovery points, as far as they go. */
import { UnderstudyError } from '../../model/errors.ts';
import { ACTIVITY_EVENTS, makeEvent } from '../../model/events.ts';
import { verify } from '../../resync/verify.ts';
import type { CallContext, HostOperations, Params, Result } from '../api/contract.ts';
import type { Host } from '../host.ts';
import { statusShape } from '../status.ts';

type Operations = Pick<HostOperations, 'verify' | 'failover' | 'failover.cancel' | 'points'>;

export function failoverOperations(host: Host): Operations {
  const { relationships } = host;
  return {
    'verify': (params, context) => verifyVm(host, params, context),
    'failover': async ({ name, kind, point }) => {
      const vm = host.vm(name);
      if (kind !== 'unplanned') {
        throw new UnderstudyError('state', 'NOT_AVAILABLE', `a ${kind} failover is not in this version`,
          'Only the unplanned failover to the latest point is.');
      }
      if (point !== undefined && point !== 'latest') {
        throw new UnderstudyError('usage', 'POINT_NOT_FOUND', `VM '${name}' has no recovery point ${point}`, 'See: understudy points NAME');
      }
      relationships.check(vm.vmId, 'failover');
      await host.failover.unplanned(vm.vmId);
      return statusShape(host, vm);
    },
    'failover.cancel': async ({ name }) => {
      const vm = host.vm(name);
      relationships.check(vm.vmId, 'cancel-failover');
      await host.failover.cancel(vm.vmId);
      return statusShape(host, vm);
    },
    'points': async ({ name }) => {
      const { vmId } = host.vm(name);
      const { lastAppliedTime, lastAppliedEpoch, consistentFrom, baselineId } = relationships.get(vmId);
      if (baselineId === '' || lastAppliedTime === null || lastAppliedEpoch < consistentFrom) return [];
      return [{ id: 'latest', time: new Date(lastAppliedTime).toISOString(), kind: 'latest', bytes: 0 }];
    },
  };
}

async function verifyVm(host: Host, { name, repair }: Params<'verify'>, context: CallContext): Promise<Result<'verify'>> {
  const { relationships } = host;
  const vm = host.vm(name);
  relationships.check(vm.vmId, 'verify');
  const primary = host.primary(vm.vmId);
  const startedAt = host.parts.clock.monotonic();
  const progress = (done: number, total: number) => context.progress({ phase: 'comparing', done, total, unit: 'bytes' });
  const result = await verify(primary, { signal: context.signal, progress });
  const seconds = Math.round((host.parts.clock.monotonic() - startedAt) / 1000);
  const { comparedBytes, differingBytes } = result;
  const mends = repair === true && !result.equal;
  relationships.note(vm.vmId, result.equal
    ? makeEvent(ACTIVITY_EVENTS.verifyPassed, name, { comparedBytes, seconds })
    : makeEvent(ACTIVITY_EVENTS.verifyFailed, name, { differingBytes, findings: result.findings, repaired: mends }));
  if (mends) {
    primary.require({ trigger: 8, reason: 'verify found a difference and was asked to repair it' });
    const { required } = relationships.get(vm.vmId);
    relationships.update(vm.vmId, { required: { ...required!, startAt: host.parts.clock.now() } });
    primary.wake();
    while (relationships.get(vm.vmId).state !== 'Replicating') await host.parts.clock.sleep(100, context.signal);
  }
  return { vmName: name, ...result, at: new Date(result.at).toISOString(), repairedBytes: mends ? differingBytes : 0 };
}
