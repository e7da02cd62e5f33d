/** What is going on: status, health, events, and the server's own checks. */
import type { EventRecord, VmRecord } from '../../model/records.ts';
import type { CallContext, Check, HostEvent, HostOperations, Params } from '../api/contract.ts';
import type { Host } from '../host.ts';
import { sendingEnd, vmOfEnd } from '../sending-end.ts';
import { eachRelationship, healthShape, statusShape } from '../status.ts';

type Operations = Pick<HostOperations, 'status' | 'health' | 'events' | 'cycles' | 'doctor'>;

const EVENTS_DEFAULT = 100;
/** How often followed events are looked for; they are rare, and a look is one query by index. */
const FOLLOW_MS = 500;
const FREE_BYTES_WARN = 1 << 30;

export function monitoringOperations(host: Host): Operations {
  return {
    'status': async ({ name, extended }) => about(host, statusShape, name, extended),
    'health': async ({ name, extended }) => about(host, healthShape, name, extended),
    'events': (params, context) => events(host, params, context),
    'cycles': async (end) => sendingEnd(host, end.extended).relationships.cycles(vmOfEnd(host, end).vmId).map(({ at, outcome, bytes, latencyMs }) =>
      ({ time: new Date(at).toISOString(), outcome, bytes, latencySeconds: latencyMs / 1000 })),
    'doctor': () => doctor(host),
  };
}

/** One with a name; all, with the legs to extended replicas, without. */
function about<T>(host: Host, shape: (host: Host, vm: VmRecord, extended: boolean) => T, name?: string, extended = false): T | T[] {
  if (name !== undefined) return shape(host, vmOfEnd(host, { name, extended }), extended);
  return eachRelationship(host, (...relationship) => ({ extended: relationship[2], shape: shape(...relationship) }))
    .filter((one) => one.extended || !extended).map((one) => one.shape);
}

async function events(host: Host, params: Params<'events'>, context: CallContext): Promise<HostEvent[]> {
  if (params.name !== undefined) host.vm(params.name);
  const filter = { ...(params.name === undefined ? {} : { vmName: params.name }), limit: params.limit ?? EVENTS_DEFAULT };
  const since = params.since === undefined ? -Infinity : Date.parse(params.since);
  const past = host.catalog.events(filter);
  const shown = past.filter(({ time }) => time >= since).map(shape);
  if (params.follow !== true) return shown;
  for (const event of shown) context.emit(event);
  let after = past.at(-1)?.sequence ?? host.catalog.events({ limit: 1 }).at(-1)?.sequence ?? 0;
  while (!context.signal.aborted) {
    for (const event of host.catalog.events({ ...filter, after, limit: 1000 })) {
      context.emit(shape(event));
      after = event.sequence;
    }
    await host.parts.clock.sleep(FOLLOW_MS, context.signal).catch(() => undefined);
  }
  return [];
}

const shape = ({ time, id, level, vmName, message, data }: EventRecord): HostEvent =>
  ({ time: new Date(time).toISOString(), id, level, vmName, message, data });

async function doctor(host: Host): Promise<Check[]> {
  const free = await host.parts.files.freeBytes(host.dataFolder);
  const checks: Check[] = [{
    check: 'free-space', ok: free >= FREE_BYTES_WARN, detail: `${free} bytes free in ${host.dataFolder}`,
    remedy: free >= FREE_BYTES_WARN ? null : 'Free space: the catalog and the inbox of replicas live there.',
  }];
  for (const vm of host.catalog.vms.list()) {
    const failure = host.failureOf(vm.vmId);
    checks.push({
      check: `disks of VM '${vm.name}'`, ok: failure === undefined, detail: failure?.message ?? `${vm.disks.length} disks`,
      remedy: failure?.remedy ?? null,
    });
  }
  return checks;
}
