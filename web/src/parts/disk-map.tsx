/** A disk as a row of cells: what is proven equal, what differs, what was mended, what is a hole, what nobody has read yet. */
import { memo } from 'react';
import type { ResyncStatus } from '../../../src/server/api/contract.ts';
import { bytes } from '../data/format.ts';

const CELLS: [letter: string, name: string, label: string][] = [
  ['e', 'equal', 'Equal'],
  ['m', 'mended', 'Mended'],
  ['d', 'differing', 'Differs, being sent'],
  ['h', 'hole', 'Hole (zeroes on both sides)'],
  ['.', 'unread', 'Not read yet'],
  ['-', 'outside', 'Known equal, not compared'],
];
const NAME = new Map(CELLS.map(([letter, name]) => [letter, name]));

type Disk = ResyncStatus['disks'][number];

export const DiskMap = memo(
  function DiskMap({ disk }: { disk: Disk }) {
    const map = typeof disk.map === 'string' ? disk.map : '';
    const counts = CELLS.map(([letter, , label]) => [label, [...map].filter((cell) => cell === letter).length] as const).filter(
      ([, n]) => n > 0,
    );
    return (
      <figure className="disk">
        <figcaption>
          <span>{disk.path}</span>
          <small>
            {bytes(disk.comparedBytes)} of {bytes(disk.totalBytes)} compared, {bytes(disk.differingBytes)} differ, {bytes(disk.sentBytes)}{' '}
            sent
          </small>
        </figcaption>
        {map === '' ? null : (
          <div
            className="cells"
            role="img"
            aria-label={`Map of ${disk.path}: ${counts.map(([label, n]) => `${label} ${Math.round((n / map.length) * 100)} %`).join(', ')}`}
          >
            {[...map].map((letter, at) => (
              <i key={at} className={NAME.get(letter) ?? 'unread'} />
            ))}
          </div>
        )}
      </figure>
    );
  },
  (before, after) => JSON.stringify(before.disk) === JSON.stringify(after.disk),
);

export function DiskMapLegend() {
  return (
    <ul className="legend" aria-label="What the map shows">
      {CELLS.map(([, name, label]) => (
        <li key={name}>
          <i className={name} />
          {label}
        </li>
      ))}
    </ul>
  );
}
