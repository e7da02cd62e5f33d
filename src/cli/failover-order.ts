/** In which order several VMs fail over, and what becomes of those that wait for one that did not. Pure. */
import { UnderstudyError } from '../model/errors.ts';

export interface OrderedVm {
  name: string;
  /** These must have succeeded first. */
  after: readonly string[];
}

/**
 * `after`: `NAME=OTHER` or `NAME=OTHER,ANOTHER`. The order as given, but each VM behind those that it names.
 * @throws FAILOVER_ORDER_INVALID for a name that is not among them, a name given twice, or a circle
 */
export function inOrder(names: readonly string[], after: readonly string[]): OrderedVm[] {
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw invalid(`VM '${twice}' is named twice`, 'Name each VM once.');
  const waits = new Map<string, string[]>(names.map((name) => [name, []]));
  for (const rule of after) {
    // A VM name may hold an equals sign: the known name that fits counts.
    const name = names.find((known) => rule.startsWith(`${known}=`));
    const others = name === undefined ? [] : rule.slice(name.length + 1).split(',');
    const unknown = others.find((other) => !names.includes(other) || other === name);
    if (name === undefined || unknown !== undefined) {
      throw invalid(`--after ${rule} names ${unknown === undefined ? 'no VM' : `'${unknown}', which is not another one`} of: ${names.join(', ')}`,
        'Give it as --after NAME=OTHER, with names that are failed over by the same command.');
    }
    waits.get(name)!.push(...others);
  }
  const ordered: OrderedVm[] = [];
  const isDone = (name: string): boolean => ordered.some((one) => one.name === name);
  while (ordered.length < names.length) {
    const next = names.find((name) => !isDone(name) && waits.get(name)!.every(isDone));
    if (next === undefined) throw invalid(`VMs wait for each other in a circle: ${names.filter((name) => !isDone(name)).join(', ')}`, 'Take one --after away.');
    ordered.push({ name: next, after: waits.get(next)! });
  }
  return ordered;
}

const invalid = (message: string, remedy: string): UnderstudyError => new UnderstudyError('usage', 'FAILOVER_ORDER_INVALID', message, remedy);
