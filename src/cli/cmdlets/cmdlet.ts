/** What a cmdlet is, what it is given, and how it finds the virtual machines that are meant. */

import { messageOf, UnderstudyError } from '../../model/errors.ts';
import type { OperationName, Params, Result, Status } from '../../server/api/contract.ts';
import type { Bound, Parameter } from './parameters.ts';
import { findProperty, replicationRow } from './records.ts';
import type { Row } from './records.ts';
import { isWildcard, matches } from './wildcard.ts';

export interface CmdletContext {
  /** Calls the host's server; rejects with UnderstudyError. */
  call<N extends OperationName>(name: N, params: Params<N>): Promise<Result<N>>;
  stdout: { write(text: string): unknown };
  /** Milliseconds since 1970 UTC. */
  now: number;
  /** IANA name: times that people give and see are local to it. */
  zone: string;
  /** Absolute path of one that a person gave. */
  path(given: string): string;
}

export type Cmdlet = {
  name: string;
  summary: string;
  parameters: readonly Parameter[];
  /** `input`: the objects from before a `|`, or null at the start of a line. */
  run(bound: Bound, context: CmdletContext, input: readonly Row[] | null): Promise<readonly Row[]>;
};

export const VM_NAME: Parameter = { name: 'VMName', type: 'strings', aliases: ['Name', 'VM', 'VMReplication'], position: 0 };
export const RELATIONSHIP: Parameter = {
  name: 'ReplicationRelationshipType',
  type: ['Simple', 'Extended'],
  aliases: ['Relationship', 'RRT'],
};
export const PASSTHRU: Parameter = { name: 'Passthru', type: 'switch' };
export const AS_JOB: Parameter = {
  name: 'AsJob',
  type: 'switch',
  unsupported: 'the server works on by itself; follow it with Measure-VMReplication',
};

export function textOf(bound: Bound, name: string): string | undefined {
  const value = bound.get(name);
  return typeof value === 'string' ? value : undefined;
}
export function numberOf(bound: Bound, name: string): number | undefined {
  const value = bound.get(name);
  return typeof value === 'number' ? value : undefined;
}
/** True or false where it was given. */
export function truthOf(bound: Bound, name: string): boolean | undefined {
  const value = bound.get(name);
  return typeof value === 'boolean' ? value : undefined;
}
export function listOf(bound: Bound, name: string): readonly string[] | undefined {
  const value = bound.get(name);
  return typeof value === 'object' ? value : undefined;
}

/** `{ [name]: value }`, or nothing to spread when there is no value. */
export function maybe<Name extends string, V>(name: Name, value: V | undefined): { [K in Name]?: V } {
  return (value === undefined ? {} : { [name]: value }) as { [K in Name]?: V };
}

/** Which relationship of a VM is meant, as the operations take it. */
export function endOf(bound: Bound): { extended?: true } {
  return textOf(bound, 'ReplicationRelationshipType')?.toLowerCase() === 'extended' ? { extended: true } : {};
}

export function required(cmdlet: string, bound: Bound, name: string): string {
  const value = textOf(bound, name);
  if (value === undefined || value === '') throw missing(cmdlet, name);
  return value;
}

function missing(cmdlet: string, name: string): UnderstudyError {
  return new UnderstudyError(
    'usage',
    'ARGUMENT_MISSING',
    `${cmdlet} needs -${name}`,
    `Give -${name} VALUE; see: Get-Help ${cmdlet}`,
  );
}

/** Names from -VMName, else from the objects of the pipeline; undefined when there are neither. */
export function namesGiven(bound: Bound, input: readonly Row[] | null): readonly string[] | undefined {
  const fromInput = input?.map((row) => findProperty(row, 'VMName')?.value).filter((name) => typeof name === 'string');
  return listOf(bound, 'VMName') ?? fromInput;
}

export async function allStatuses(context: CmdletContext): Promise<Status[]> {
  const answer = await context.call('status', {});
  return Array.isArray(answer) ? answer : [answer];
}

/** What a name means among these: itself, else in any case, or by wildcard. */
export function pick<Named>(things: readonly Named[], pattern: string, nameOf: (thing: Named) => string): Named[] {
  if (isWildcard(pattern)) return things.filter((thing) => matches(pattern, nameOf(thing)));
  const exact = things.filter((thing) => nameOf(thing) === pattern);
  return exact.length > 0 ? exact : things.filter((thing) => nameOf(thing).toLowerCase() === pattern.toLowerCase());
}

/**
 * The VMs that are meant, once each. A wildcard passes over VMs that are not replicated and may match none; the host
 * itself answers for a name that is not among them (unknown, or not replicated).
 */
export async function statusesOf(context: CmdletContext, patterns: readonly string[]): Promise<Status[]> {
  const all = await allStatuses(context);
  const meant = new Map<string, Status>();
  for (const pattern of patterns) {
    const found = pick(all, pattern, ({ vmName }) => vmName).filter(
      ({ state }) => state !== 'Disabled' || !isWildcard(pattern),
    );
    const asked =
      found.length > 0 || isWildcard(pattern) ? found : [await context.call('status', { name: pattern })].flat();
    for (const status of asked) meant.set(`${status.vmName}/${status.mode}/${status.relationship}`, status);
  }
  return [...meant.values()];
}

/** The same among all VMs of this host, for what makes a VM replicated. */
async function vmNamesOf(context: CmdletContext, patterns: readonly string[]): Promise<string[]> {
  const all = await context.call('vm.list', {});
  return [
    ...new Set(
      patterns.flatMap((pattern) => {
        const found = pick(all, pattern, ({ name }) => name).map(({ name }) => name);
        return found.length > 0 || isWildcard(pattern) ? found : [pattern];
      }),
    ),
  ];
}

/**
 * Does `work` for each VM that is meant. One VM that fails does not keep the others from their turn; the error then
 * names all that failed. With -WhatIf it only says what it would do, with -Passthru it puts out the changed objects.
 */
export async function forEachVm(
  cmdlet: string,
  bound: Bound,
  context: CmdletContext,
  input: readonly Row[] | null,
  work: (name: string) => Promise<unknown>,
  among: 'replicated' | 'all' = 'replicated',
): Promise<readonly Row[]> {
  const patterns = namesGiven(bound, input);
  if (patterns === undefined) throw missing(cmdlet, 'VMName');
  const names =
    among === 'all'
      ? await vmNamesOf(context, patterns)
      : [...new Set((await statusesOf(context, patterns)).map(({ vmName }) => vmName))];
  const failed: { name: string; error: unknown }[] = [];
  const done: string[] = [];
  for (const name of names) {
    if (truthOf(bound, 'WhatIf') === true) {
      context.stdout.write(`What if: Performing the operation "${cmdlet}" on target "${name}".\n`);
      continue;
    }
    try {
      await work(name);
      done.push(name);
    } catch (error) {
      if (!(error instanceof UnderstudyError) || names.length === 1) throw error;
      failed.push({ name, error });
    }
  }
  if (failed.length > 0) throw several(cmdlet, failed, names.length);
  if (truthOf(bound, 'Passthru') !== true) return [];
  return (await allStatuses(context)).filter(({ vmName }) => done.includes(vmName)).map(replicationRow);
}

function several(cmdlet: string, failed: readonly { name: string; error: unknown }[], of: number): unknown {
  const first = failed[0]?.error;
  if (!(first instanceof UnderstudyError)) return first;
  const texts = failed.map(({ name, error }) => `${name}: ${messageOf(error)}`).join('; ');
  return new UnderstudyError(
    first.kind,
    first.code,
    `${cmdlet} failed for ${failed.length} of ${of} virtual machines: ${texts}`,
    first.remedy,
  );
}
