/**
 * The adapter `libvirt`, through its program virsh.
 *
 * A domain that is defined here by its user is started as it is, and never changed or forgotten: on a primary, and on a replica too. Else
 * a replica makes one of what the primary has told (domain-xml.ts), anew for every failover. Once it has run as the primary's, it is its
 * user's own.
 */
import { UnderstudyError } from '../../model/errors.ts';
import type { HypervisorSettings } from '../../model/hypervisor.ts';
import type { Clock, Files, ProgramResult, Programs, Random } from '../../model/ports.ts';
import { PROGRAM_PATH, refuseFailure, startedAs } from './command.ts';
import type { Guest, HypervisorAdapter } from './adapter.ts';
import { editDomain } from './domain-xml.ts';

/** A domain as its primary has told it. */
export interface DomainDefinition {
  xml: string;
  /** Disk ids by the names under which the domain opens them there. */
  exports: Record<string, string>;
}

export interface LibvirtParts {
  programs: Programs;
  clock: Clock;
  files: Files;
  random: Random;
  /** Where a definition may be written for the moment that virsh reads it. */
  folder: string;
  definition(vmId: string): DomainDefinition | null;
  /** Whether the domain was made here; on record before it is defined. */
  isMade(vmId: string, domain: string): boolean;
  made(vmId: string, domain: string | null): void;
  /** Other than `virsh`, in tests. */
  virsh?: string;
}

export type LibvirtSettings = Pick<HypervisorSettings, 'timeoutSec' | 'libvirtUri' | 'libvirtDomain' | 'networks' | 'testNetwork'>;

const LOOK_AGAIN_MS = 250;
const LAST_LOOK_MS = 1000;

export class LibvirtAdapter implements HypervisorAdapter {
  readonly kind = 'libvirt';
  #parts: LibvirtParts;
  #settings: LibvirtSettings;

  constructor(parts: LibvirtParts, settings: LibvirtSettings) {
    this.#parts = parts;
    this.#settings = settings;
  }

  async start(guest: Guest, signal: AbortSignal): Promise<string> {
    const virsh = this.#virsh(guest, signal);
    const state = await virsh.state();
    if (isOn(state)) return `domain '${virsh.domain}' is ${state} already`;
    const definition = this.#mayMake(guest, virsh.domain, state) ? this.#parts.definition(guest.vmId) : null;
    if (definition === null && state === null) throw noDomain(guest, virsh.domain);
    if (guest.role === 'primary' && !guest.test) this.#parts.made(guest.vmId, null);
    const dropped = definition === null ? [] : await this.#define(virsh, guest, definition);
    const said = await virsh.run('start', virsh.domain);
    return [said.trim(), ...(dropped.length === 0 ? [] : [`left out of its definition: ${dropped.join(', ')}`])].join('\n');
  }

  async stop(guest: Guest, signal: AbortSignal): Promise<string> {
    const virsh = this.#virsh(guest, signal);
    if (!isOn(await virsh.state())) return `domain '${virsh.domain}' is off`;
    const said = await virsh.run('shutdown', virsh.domain);
    for (let state = await virsh.state(); isOn(state); state = await virsh.state()) await virsh.pause(`${said.trim()}\nthe domain is ${state} still`);
    return said.trim();
  }

  async powerOff(guest: Guest, signal: AbortSignal): Promise<string> {
    const virsh = this.#virsh(guest, signal);
    const state = await virsh.state();
    if (state === null) return `there is no domain '${virsh.domain}'`;
    const said = isOn(state) ? await virsh.run('destroy', virsh.domain) : '';
    const definition = this.#mayMake(guest, virsh.domain, state) ? this.#parts.definition(guest.vmId) : null;
    // A domain that was made by hand is not ours to forget.
    if (definition === null) return said.trim();
    const nvram = /<(nvram|os firmware)\b/.test(definition.xml) ? ['--nvram'] : [];
    const forgotten = await virsh.run('undefine', virsh.domain, ...nvram);
    if (!guest.test) this.#parts.made(guest.vmId, null);
    return `${said}${forgotten}`.trim();
  }

  /** The definition of the domain of a primary, without secrets; null when there is none of its name. */
  async definition(guest: Guest, signal: AbortSignal): Promise<string | null> {
    const virsh = this.#virsh(guest, signal);
    this.#parts.made(guest.vmId, null);
    return (await virsh.state()) === null ? null : virsh.run('dumpxml', '--inactive', virsh.domain);
  }

  /** A test's domain is always ours; a replica's is when there is none, or it was made here. */
  #mayMake(guest: Guest, domain: string, state: string | null): boolean {
    if (guest.test) return true;
    return guest.role === 'replica' && (state === null || this.#parts.isMade(guest.vmId, domain));
  }

  async #define(virsh: Virsh, guest: Guest, { xml, exports }: DomainDefinition): Promise<string[]> {
    const { files, random, folder } = this.#parts;
    const { networks, testNetwork } = this.#settings;
    const exportedAs = new Map(Object.entries(exports).map(([name, diskId]) => [diskId, name]));
    const edited = editDomain(xml, {
      name: virsh.domain, test: guest.test ? { uuid: random.uuid(), macSeed: guest.vmId } : null,
      disks: guest.disks.map(({ diskId, uri, logicalSectorSize }) => ({ uri, logicalSectorSize, exportedAs: exportedAs.get(diskId) ?? null })),
      networks: guest.test ? (testNetwork === null ? {} : { '*': testNetwork }) : networks,
    });
    const path = `${folder}/${guest.vmId}${guest.test ? '-test' : ''}.domain.xml`;
    await files.makeFolder(folder);
    await files.remove(path);
    const file = await files.open(path, 'create');
    try {
      await file.write([Buffer.from(edited.xml)], 0);
    } finally {
      await file.close();
    }
    if (!guest.test) this.#parts.made(guest.vmId, virsh.domain);
    await virsh.run('define', path);
    await files.remove(path);
    return edited.dropped;
  }

  #virsh(guest: Guest, signal: AbortSignal): Virsh {
    const name = this.#settings.libvirtDomain ?? guest.vmName;
    return new Virsh(this.#parts, this.#settings, guest.test ? `${name} - Test` : name, signal);
  }
}

/** virsh for one action on one domain, which has one time limit. */
class Virsh {
  readonly domain: string;
  #parts: LibvirtParts;
  #settings: LibvirtSettings;
  #signal: AbortSignal;
  #end: number;

  constructor(parts: LibvirtParts, settings: LibvirtSettings, domain: string, signal: AbortSignal) {
    this.domain = domain;
    this.#parts = parts;
    this.#settings = settings;
    this.#signal = signal;
    this.#end = parts.clock.monotonic() + settings.timeoutSec * 1000;
  }

  /** Null: there is no such domain. */
  async state(): Promise<string | null> {
    const result = await this.#start(['domstate', this.domain]);
    if (result.exitCode === 1 && /failed to get domain/i.test(result.output)) return null;
    this.#refuse(result, 'domstate');
    return result.stdout.trim();
  }

  async run(...words: string[]): Promise<string> {
    const result = await this.#start(words);
    this.#refuse(result, words[0]!);
    return result.stdout;
  }

  /** @throws ADAPTER_TIMED_OUT when the time of the action is over */
  async pause(said: string): Promise<void> {
    const left = this.#end - this.#parts.clock.monotonic();
    if (left <= 0) this.#refuse({ exitCode: null, stdout: '', output: said, timedOut: true }, 'shutdown');
    await this.#parts.clock.sleep(Math.min(LOOK_AGAIN_MS, Math.max(left, 1)), this.#signal);
  }

  #start(words: string[]): Promise<ProgramResult> {
    const { programs, clock, virsh = 'virsh' } = this.#parts;
    const env = { PATH: PROGRAM_PATH, LC_ALL: 'C' };
    // The last look at a guest that is shutting down needs time of its own.
    const timeoutMs = Math.max(LAST_LOOK_MS, this.#end - clock.monotonic());
    return startedAs(virsh, () =>
      programs.run(virsh, ['--connect', this.#settings.libvirtUri, '--quiet', ...words], { env, timeoutMs, signal: this.#signal }));
  }

  #refuse(result: ProgramResult, word: string): void {
    refuseFailure(result, { what: `virsh ${word}`, guest: this.domain, timeoutSec: this.#settings.timeoutSec });
  }
}

const isOn = (state: string | null): boolean => state !== null && state !== 'shut off' && state !== 'crashed';

const noDomain = ({ vmName, role }: Guest, domain: string): UnderstudyError =>
  new UnderstudyError('io', 'ADAPTER_NO_DOMAIN', role === 'replica'
    ? `libvirt has no domain '${domain}' here, and the primary has not told its definition`
    : `libvirt has no domain '${domain}'`,
  role === 'replica' ? `Set the adapter on the primary too (understudy set '${vmName}' --adapter libvirt) while it can be reached, or define the domain here.`
    : `Define it, or name another one: understudy set '${vmName}' --libvirt-domain NAME`);
