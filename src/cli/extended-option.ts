/** `--extended`: which relationship of a VM a command is about. */
import type { Option } from 'commander';
import { option } from './command.ts';

export interface ExtendedOption {
  extended?: true;
}

export const extendedOption = (): Option =>
  option('--extended', 'of the extended replica that this host feeds, not of the replica itself');

/** As the operations take it. */
export const endOf = (name: string, { extended }: ExtendedOption): { name: string; extended?: true } =>
  (extended === true ? { name, extended } : { name });
