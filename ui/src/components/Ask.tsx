/** Dialogs: what is about to be done, to whom, and what has to be said with it. */

import { Button, CloseButton, Dialog, Field, Input, Portal, Text, VStack } from "@chakra-ui/react";
import { useState, type ReactNode } from "react";
import { Problem } from "../api";
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

interface AskProps {
  title: string;
  explained: string;
  /** Whether a reason is asked for, and for how long. */
  wants: readonly ("reason" | "lasts")[];
  isGrave: boolean;
  doIt: (said: { reason: string; lastsS: number | null }) => Promise<void>;
  onClose: () => void;
}

/** Ask before something is done; stay open with the cause if it can't be. */
export function Ask({ title, explained, wants, isGrave, doIt, onClose }: AskProps) {
  const [reason, setReason] = useState("");
  const [minutes, setMinutes] = useState("");
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem>();

  async function go(): Promise<void> {
    setBusy(true);
    setProblem(undefined);
    try {
      await doIt({ reason, lastsS: Number(minutes) > 0 ? Number(minutes) * 60 : null });
      onClose();
    } catch (error) {
      setProblem(error instanceof Problem ? error : new Problem(String(error), 0, "unreachable"));
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
        {wants.includes("reason") ? <Line label={words().ask.reason} onChange={setReason} value={reason} /> : null}
        {wants.includes("lasts") ? <Line label={words().ask.lasts} onChange={setMinutes} value={minutes} /> : null}
        <Trouble problem={problem} />
      </VStack>
    </Sheet>
  );
}
