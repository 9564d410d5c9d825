/** Dialogs: what an action does, to which things, and the fields that it takes. */

import { Button, Dialog as ChakraDialog, CloseButton, Field, Input, Portal, Text, VStack } from "@chakra-ui/react";
import { useState, type ReactNode } from "react";
import { asProblem, type Problem } from "../api";
import { words } from "../words";
import { ErrorNotice } from "./Notices";
import { Select } from "./Select";

interface DialogFrameProps {
  title: string;
  onClose: () => void;
  children: ReactNode;
  footer?: ReactNode;
}

/** A dialog with a title and a button that closes it. */
export function DialogFrame({ title, onClose, children, footer }: DialogFrameProps) {
  return (
    <ChakraDialog.Root onOpenChange={({ open }) => (open ? undefined : onClose())} open size="lg">
      <Portal>
        <ChakraDialog.Backdrop />
        <ChakraDialog.Positioner>
          <ChakraDialog.Content>
            <ChakraDialog.Header>
              <ChakraDialog.Title>{title}</ChakraDialog.Title>
            </ChakraDialog.Header>
            <ChakraDialog.Body>{children}</ChakraDialog.Body>
            {footer ? <ChakraDialog.Footer>{footer}</ChakraDialog.Footer> : null}
            <ChakraDialog.CloseTrigger asChild>
              <CloseButton aria-label={words().actions.close} size="sm" />
            </ChakraDialog.CloseTrigger>
          </ChakraDialog.Content>
        </ChakraDialog.Positioner>
      </Portal>
    </ChakraDialog.Root>
  );
}

export function TextField({ label, value, onChange }: { label: string; value: string; onChange: (value: string) => void }) {
  return (
    <Field.Root>
      <Field.Label>{label}</Field.Label>
      <Input onChange={(event) => onChange(event.target.value)} size="sm" value={value} />
    </Field.Root>
  );
}

interface SelectFieldProps {
  label: string;
  value: string;
  choices: Readonly<Record<string, string>>;
  onChange: (value: string) => void;
}

/** A choice from a few values, with its label above it. */
export function SelectField({ label, ...select }: SelectFieldProps) {
  return (
    <Field.Root>
      <Field.Label>{label}</Field.Label>
      <Select label={label} {...select} />
    </Field.Root>
  );
}

export interface DialogField<Name extends string> {
  name: Name;
  label: string;
  /** The initial text; absent: empty. */
  value?: string;
  /** The label of each value that can be chosen; absent: any text can be typed. */
  choices?: Readonly<Record<string, string>>;
}

interface DialogProps<Name extends string> {
  title: string;
  explanation: string;
  fields: readonly DialogField<Name>[];
  isDestructive?: boolean;
  /** Do it with the texts of the fields; throw the cause if it fails. */
  onConfirm: (texts: Record<Name, string>) => Promise<void>;
  onClose: () => void;
}

/** Ask for confirmation before an action. If the action fails, the dialog stays open and shows the cause. */
export function Dialog<Name extends string>({ title, explanation, fields, isDestructive, onConfirm, onClose }: DialogProps<Name>) {
  const [texts, setTexts] = useState(() => Object.fromEntries(fields.map(({ name, value }) => [name, value ?? ""])) as Record<Name, string>);
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem>();

  async function confirm(): Promise<void> {
    setBusy(true);
    setProblem(undefined);
    try {
      await onConfirm(texts);
      onClose();
    } catch (error) {
      setProblem(asProblem(error));
      setBusy(false);
    }
  }

  return (
    <DialogFrame
      footer={
        <>
          <Button onClick={onClose} size="sm" variant="outline">
            {words().actions.cancel}
          </Button>
          <Button colorPalette={isDestructive ? "red" : "brand"} loading={isBusy} onClick={() => void confirm()} size="sm">
            {title}
          </Button>
        </>
      }
      onClose={onClose}
      title={title}
    >
      <VStack align="stretch" gap="3">
        <Text>{explanation}</Text>
        {fields.map(({ name, label, choices }) => {
          const common = { label, onChange: (value: string) => setTexts({ ...texts, [name]: value }), value: texts[name] };
          return choices ? <SelectField choices={choices} key={name} {...common} /> : <TextField key={name} {...common} />;
        })}
        <ErrorNotice problem={problem} />
      </VStack>
    </DialogFrame>
  );
}
