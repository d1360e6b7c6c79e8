"""Masks from boxes or extreme points without any learning: what a method with the same labels has to beat."""
