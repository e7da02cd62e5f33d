/** What editing a domain needs of an XML tree. */
import type { Element, Node } from '@xmldom/xmldom';

/** Elements below, in order; of one name, when it is given. */
export function childrenOf(element: Element, name?: string): Element[] {
  return Array.from(element.childNodes).filter((node: Node): node is Element =>
    node.nodeType === 1 && (name === undefined || (node as Element).tagName === name));
}

export const childOf = (element: Element, name: string): Element | null => childrenOf(element, name)[0] ?? null;

export function append(element: Element, name: string, attributes: Record<string, string>): Element {
  const child = element.ownerDocument!.createElement(name);
  for (const [key, value] of Object.entries(attributes)) child.setAttribute(key, value);
  element.appendChild(child);
  return child;
}

/** Elements with a prefix are of another namespace (`qemu:commandline`), and never kept. */
export function keepOnly(element: Element, kept: ReadonlySet<string>, dropped?: string[]): void {
  for (const child of childrenOf(element)) {
    if (kept.has(child.tagName)) continue;
    element.removeChild(child);
    dropped?.push(child.tagName);
  }
}
