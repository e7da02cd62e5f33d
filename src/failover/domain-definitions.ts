/**
 * A libvirt domain's definition travels with its relationship: the primary tells it when it has changed, the replica keeps the last one
 * for the day of a failover. Told apart from the cycles of replication, which wait for nothing.
 *
 * Invariants
 * - A definition that is taken has been parsed, has a bound, and is used only by a host whose own setting says libvirt.
 * - What the replica has acknowledged is on record here, so that it is told again after a change, a new replica or a reversal.
 */
import { z } from 'zod';
import { messageOf } from '../model/errors.ts';
import type { VmRecord } from '../model/records.ts';
import type { PeerDispatcher } from '../peer/dispatcher.ts';
import type { PeerMessage } from '../peer/message.ts';
import type { ReplicaHost } from '../replication/replica-host.ts';
import type { ReplicationPorts } from '../replication/replication-ports.ts';
import { DOMAIN_XML_BYTES_MAX, parseDomain } from './adapters/domain-xml.ts';
import type { DomainDefinition } from './adapters/libvirt.ts';

const LOOK_EVERY_MS = 60_000;

const definitionParams = z.strictObject({
  vmId: z.uuid(),
  /** Disk ids by the names under which the domain opens them on the primary. */
  exports: z.record(z.string().min(1).max(300), z.string().regex(/^[a-z0-9-]{1,40}$/)),
});

/** Primary → replica: how the guest is defined there; the XML is the payload. */
export const definitionMessage: PeerMessage<z.output<typeof definitionParams>, Record<string, never>> = {
  name: 'vm.definition', params: definitionParams, result: z.strictObject({}), payloadBytesMax: DOMAIN_XML_BYTES_MAX, replyBytesMax: 0,
};

export interface DefinitionParts {
  ports: ReplicationPorts;
  replicas: ReplicaHost;
  /** Of a primary whose adapter is libvirt: its domain; null when there is none, or another adapter. */
  read(vm: VmRecord, signal: AbortSignal): Promise<DomainDefinition | null>;
}

export class DomainDefinitions {
  #parts: DefinitionParts;
  #stop = new AbortController();
  #loop: Promise<void> = Promise.resolve();
  #wake = Promise.withResolvers<void>();

  constructor(parts: DefinitionParts) {
    this.#parts = parts;
  }

  serve(dispatcher: PeerDispatcher): void {
    dispatcher.handle(definitionMessage, async (caller, { vmId, exports }, payload) => {
      const vm = this.#parts.replicas.of(caller, vmId);
      const xml = Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).toString('utf8');
      parseDomain(xml);
      this.#parts.ports.catalog.setValue(keyOf(vm.vmId), { xml, exports } satisfies DomainDefinition);
      return { result: {} };
    });
  }

  /** What the primary told last; null when it has not, or when that cannot be read. */
  of(vmId: string): DomainDefinition | null {
    const { success, data } = storedSchema.safeParse(this.#parts.ports.catalog.value(keyOf(vmId)));
    return success ? data : null;
  }

  /** Replication has ended here. */
  forget(vmId: string): void {
    const { catalog } = this.#parts.ports;
    catalog.setValue(keyOf(vmId), null);
    catalog.setValue(toldKeyOf(vmId), null);
    catalog.setValue(madeKeyOf(vmId), null);
  }

  /** Whether the domain of that name is one that this host has made of a definition, and no user's own. */
  isMade(vmId: string, domain: string): boolean {
    return this.#parts.ports.catalog.value(madeKeyOf(vmId)) === domain;
  }

  made(vmId: string, domain: string | null): void {
    this.#parts.ports.catalog.setValue(madeKeyOf(vmId), domain);
  }

  start(): void {
    this.#loop = this.#run();
  }

  /** A setting or a relationship has changed: look at once. */
  wake(): void {
    this.#wake.resolve();
  }

  async close(): Promise<void> {
    this.#stop.abort(new Error('the server stops'));
    this.wake();
    await this.#loop;
  }

  /** Tells the replica of this VM, if there is something new to tell. */
  async tell(vmId: string, signal: AbortSignal): Promise<void> {
    const { ports, read } = this.#parts;
    const relationship = ports.relationships.find(vmId);
    if (relationship?.side !== 'primary' || relationship.state === 'Disabled') return;
    const definition = await read(ports.relationships.vm(vmId), signal);
    if (definition === null) return;
    const payload = Buffer.from(definition.xml);
    const told = `${relationship.remote.fingerprint} ${relationship.generation ?? 0} ${
      Buffer.from(ports.compute.digest(Buffer.concat([payload, Buffer.from(JSON.stringify(definition.exports))]))).toString('hex')}`;
    if (ports.catalog.value(toldKeyOf(vmId)) === told) return;
    await ports.link(relationship.remote).call(definitionMessage, { vmId, exports: definition.exports }, payload, { signal });
    ports.catalog.setValue(toldKeyOf(vmId), told);
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    const { clock, catalog } = this.#parts.ports;
    while (!signal.aborted) {
      this.#wake = Promise.withResolvers<void>();
      for (const { vmId } of catalog.vms.list()) await this.#tellQuietly(vmId, signal);
      const timer = new AbortController();
      await Promise.race([this.#wake.promise, clock.sleep(LOOK_EVERY_MS, timer.signal).catch(() => undefined)]);
      timer.abort();
    }
  }

  /** A replica that is not there now, or that is of an older version, is told later; virsh that fails shows when it is needed. */
  async #tellQuietly(vmId: string, signal: AbortSignal): Promise<void> {
    try {
      await this.tell(vmId, signal);
    } catch (error) {
      if (!signal.aborted) this.#parts.ports.log.info({ vm: vmId, error: messageOf(error) }, 'the definition of the domain could not be told to the replica yet');
    }
  }
}

const storedSchema = z.object({ xml: z.string(), exports: z.record(z.string(), z.string()) });
const keyOf = (vmId: string): string => `domain:${vmId}`;
const madeKeyOf = (vmId: string): string => `domain-made:${vmId}`;
const toldKeyOf = (vmId: string): string => `domain-told:${vmId}`;
