/** Dialogs: what is about to be done, to whom, and what has to be said with it. */

import { Button, CloseButton, Dialog, Field, Input, Portal, Text, VStack } from "@chakra-ui/react";
import { useState, type ReactNode } from "react";
import { asProblem, type Problem } from "../api";
import { words } from "../words";
import { Trouble } from "./Facts";

interface SheetProps {
  title: string;
  onClose: () => void;
  children: ReactNode;
  footer?: ReactNode;
}

/** A dialog with a title, and a way out. */
export function Sheet({ title, onClose, children, footer }: SheetProps) {
  return (
    <Dialog.Root onOpenChange={({ open }) => (open ? undefined : onClose())} open size="lg">
      <Portal>
        <Dialog.Backdrop />
        <Dialog.Positioner>
          <Dialog.Content>
            <Dialog.Header>
              <Dialog.Title>{title}</Dialog.Title>
            </Dialog.Header>
            <Dialog.Body>{children}</Dialog.Body>
            {footer ? <Dialog.Footer>{footer}</Dialog.Footer> : null}
            <Dialog.CloseTrigger asChild>
              <CloseButton aria-label={words().actions.close} size="sm" />
            </Dialog.CloseTrigger>
          </Dialog.Content>
        </Dialog.Positioner>
      </Portal>
    </Dialog.Root>
  );
}

export function Line({ label, value, onChange }: { label: string; value: string; onChange: (value: string) => void }) {
  return (
    <Field.Root>
      <Field.Label>{label}</Field.Label>
      <Input onChange={(event) => onChange(event.target.value)} size="sm" value={value} />
    </Field.Root>
  );
}

/** What has to be said; *value* is what stands there at first. */
export interface Want<Name extends string> {
  name: Name;
  label: string;
  value?: string;
}

interface AskProps<Name extends string> {
  title: string;
  explained: string;
  wants: readonly Want<Name>[];
  isGrave?: boolean;
  /** Do it, or throw why not. What was not asked for is empty. */
  doIt: (said: Record<Name, string>) => Promise<void>;
  onClose: () => void;
}

/** Ask before something is done; stay open with the cause if it can't be. */
export function Ask<Name extends string>({ title, explained, wants, isGrave, doIt, onClose }: AskProps<Name>) {
  const [said, setSaid] = useState(() => Object.fromEntries(wants.map(({ name, value }) => [name, value ?? ""])) as Record<Name, string>);
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem>();

  async function go(): Promise<void> {
    setBusy(true);
    setProblem(undefined);
    try {
      await doIt(said);
      onClose();
    } catch (error) {
      setProblem(asProblem(error));
      setBusy(false);
    }
  }

  return (
    <Sheet
      footer={
        <>
          <Button onClick={onClose} size="sm" variant="outline">
            {words().actions.cancel}
          </Button>
          <Button colorPalette={isGrave ? "red" : "brand"} loading={isBusy} onClick={() => void go()} size="sm">
            {title}
          </Button>
        </>
      }
      onClose={onClose}
      title={title}
    >
      <VStack align="stretch" gap="3">
        <Text>{explained}</Text>
        {wants.map(({ name, label }) => (
          <Line key={name} label={label} onChange={(value) => setSaid({ ...said, [name]: value })} value={said[name]} />
        ))}
        <Trouble problem={problem} />
      </VStack>
    </Sheet>
  );
}
